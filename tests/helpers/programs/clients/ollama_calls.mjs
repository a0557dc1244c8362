// Calls a server with the npm package `ollama`, and prints the results as JSON.

import { Ollama } from 'ollama'

const [url, names, shared] = process.argv.slice(2)
const models = JSON.parse(names)
const { schema, tool: weather } = JSON.parse(shared)
const client = new Ollama({ host: url })
const messages = [{ role: 'user', content: 'x' }]
const options = { seed: 7, num_predict: 60 }

async function failure(call) {
  try {
    await call()
  } catch (error) {
    return [error.name, error.status_code ?? null, error.message]
  }
  return null
}

const whole = await client.chat({ model: models.chat, messages, options, logprobs: true })
let streamed = ''
for await (const part of await client.chat({ model: models.chat, messages, options, stream: true })) {
  streamed += part.message.content
}
let generated = ''
for await (const part of await client.generate({ model: models.chat, prompt: 'x', options, stream: true })) {
  generated += part.response
}
const formed = await client.chat({ model: models.schema, messages, options, format: schema })
const called = await client.chat({ model: models.tool, messages, options, tools: [weather] })
const told = {
  models: (await client.list()).models.map((one) => one.name),
  capabilities: (await client.show({ model: models.chat })).capabilities,
  whole: whole.message.content,
  n_logprobs: whole.logprobs?.length,
  reason: whole.done_reason,
  streamed,
  generated,
  schema: JSON.parse(formed.message.content),
  tools: (called.message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]),
  running: (await client.ps()).models.map((one) => one.name),
  unknown: await failure(() => client.chat({ model: 'nothing', messages })),
  pull: await failure(() => client.pull({ model: 'nothing' })),
}
if (models.vectors) {
  told.vectors = (await client.embed({ model: models.vectors, input: ['a', 'b'] })).embeddings
}
if (models.slow) {
  const parts = await client.generate({ model: models.slow, prompt: 'x', stream: true })
  for await (const part of parts) {
    told.left = part.response
    parts.abort()
    break
  }
}
console.log(JSON.stringify(told))
