// Calls a server with the npm package `openai`, and prints the results as JSON.

import OpenAI from 'openai'

const [url, names, shared] = process.argv.slice(2)
const models = JSON.parse(names)
const { schema: open, tool: weather } = JSON.parse(shared)
const schema = { ...open, additionalProperties: false }
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any' })
const messages = [{ role: 'user', content: 'x' }]
const limits = { seed: 7, max_tokens: 60 }
const chat = client.chat.completions

async function failure(call) {
  try {
    await call()
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.param ?? null]
  }
  return null
}

const whole = await chat.create({ model: models.chat, messages, ...limits, logprobs: true, top_logprobs: 1 })
const chunks = []
const usage = { include_usage: true }
for await (const chunk of await chat.create({
  model: models.chat,
  messages,
  ...limits,
  stream: true,
  stream_options: usage,
})) {
  chunks.push(chunk)
}
const formed = await chat.create({
  model: models.schema,
  messages,
  ...limits,
  response_format: { type: 'json_schema', json_schema: { name: 'person', schema, strict: true } },
})
const called = await chat
  .stream({ model: models.tool, messages, ...limits, tools: [weather], tool_choice: 'required' })
  .finalChatCompletion()
const completed = await client.completions.create({ model: models.chat, prompt: 'x', ...limits })
const told = {
  models: (await client.models.list()).data.map((one) => one.id),
  whole: whole.choices[0].message.content,
  n_logprobs: whole.choices[0].logprobs.content.length,
  reason: whole.choices[0].finish_reason,
  request: whole._request_id,
  streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''),
  usage: chunks.at(-1).usage.completion_tokens,
  schema: JSON.parse(formed.choices[0].message.content),
  tools: called.choices[0].message.tool_calls.map((call) => [
    call.function.name,
    JSON.parse(call.function.arguments),
  ]),
  completed: completed.choices[0].text,
  unknown: await failure(() => chat.create({ model: 'nothing', messages })),
  refused: await failure(() => chat.create({ model: models.chat, messages, n: 2 })),
}
if (models.vectors) {
  const found = await client.embeddings.create({ model: models.vectors, input: ['a', 'b'] })
  told.vectors = found.data.map((one) => one.embedding)
}
if (models.slow) {
  const first = await client.completions.create({ model: models.slow, prompt: 'x', stream: true })
  for await (const chunk of first) {
    told.full = await failure(() =>
      client.completions.create({ model: models.slow, prompt: 'y' }, { maxRetries: 0 }),
    )
    break
  }
  told.again = (await client.completions.create({ model: models.slow, prompt: 'y', max_tokens: 1 })).choices[0].text
}
console.log(JSON.stringify(told))
