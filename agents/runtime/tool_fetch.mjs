// Fetches one address and writes {url, status, type, bytes, title, text, note} to 3, its body to 4.
// Redirects are followed one by one, so that the proxy decides on each of them.
import { readFileSync, writeFileSync, writeSync } from 'node:fs'
import { Worker } from 'node:worker_threads'

const BODY_MAX_BYTES = 5_000_000
const TEXT_MAX_CHARS = 400_000
const HOPS_MAX = 8
const READ_MS = 8000
const REDIRECTS = new Set([301, 302, 303, 307, 308])
const TEXTUAL = /^(text\/|application\/([\w.+-]*\+)?(json|xml|yaml|toml|javascript|x-ndjson|sql))/
const asked = JSON.parse(readFileSync(0, 'utf8'))

const answer = (reply) => {
  writeSync(3, JSON.stringify(reply))
  process.exit(0)
}
const port = (url) => url.port || (url.protocol === 'https:' ? 443 : 80)
const refused = (url) => answer({ refused: `${url.hostname}:${port(url)}` })

async function get(url, signal) {
  const headers = {
    'user-agent': 'Mozilla/5.0 (compatible; ai-infrastructure)',
    accept: 'text/html,application/xhtml+xml,text/markdown,text/plain,application/json,*/*;q=0.5',
    'accept-language': 'en,*;q=0.5',
  }
  try {
    return await fetch(url, { redirect: 'manual', signal, headers })
  } catch (error) {
    const causes = []
    for (let one = error; one && causes.length < 5; one = one.cause) causes.push(one)
    const told = causes.map((one) => `${one.code ?? ''} ${one.message ?? ''}`).join(' ')
    if (/\b403\b.*tunnel|tunnel.*\b403\b/i.test(told)) refused(url)
    if (error.name === 'TimeoutError') answer({ error: `${url.hostname} did not answer in time` })
    const why = causes.at(-1).message || causes.at(-1).code || error.message
    return answer({ error: `${url.hostname} cannot be reached: ${why}` })
  }
}

async function follow(signal) {
  let url = new URL(asked.url)
  for (let hop = 0; hop <= HOPS_MAX; hop += 1) {
    const response = await get(url, signal)
    if (response.headers.has('x-proxy-error')) refused(url)
    const to = response.headers.get('location')
    if (!REDIRECTS.has(response.status) || !to) return { url, response }
    await response.body?.cancel()
    const next = URL.canParse(to, url) ? new URL(to, url) : undefined
    if (!next || !/^https?:$/.test(next.protocol) || next.username || next.password)
      answer({ error: `${url.href} leads to ${to.slice(0, 200)}, which is not fetched` })
    if (url.protocol === 'https:' && next.protocol === 'http:')
      answer({ error: `${url.href} leads from https to http (${next.href}), which is not followed` })
    url = next
  }
  return answer({ error: `${asked.url} leads on more than ${HOPS_MAX} times` })
}

async function load(response) {
  const pieces = []
  let bytes = 0
  for await (const piece of response.body ?? []) {
    const left = BODY_MAX_BYTES - bytes
    pieces.push(piece.length > left ? piece.subarray(0, left) : piece)
    bytes += piece.length
    if (bytes > BODY_MAX_BYTES) return { body: Buffer.concat(pieces), cut: true }
  }
  return { body: Buffer.concat(pieces), cut: false }
}

function decoded(body, type) {
  const head = body.subarray(0, 2048).toString('latin1')
  const named = /charset=["']?([\w-]+)/i.exec(type) ?? /<meta[^>]+charset=["']?([\w-]+)/i.exec(head)
  try {
    return new TextDecoder(named?.[1] ?? 'utf-8').decode(body)
  } catch {
    return new TextDecoder('utf-8').decode(body)
  }
}

/** The page's title and text. A page that takes too long to understand gives its bare words. */
async function readable(html, url) {
  const worker = new Worker(new URL('./readable.mjs', import.meta.url), {
    workerData: { html, url: url.href },
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  })
  const late = new Promise((resolve) => setTimeout(resolve, READ_MS))
  const done = new Promise((resolve) => {
    worker.once('message', resolve)
    worker.once('error', () => resolve())
  })
  const found = await Promise.race([done, late])
  await worker.terminate()
  return found ?? { title: '', text: words(html), note: `${told.note}; only its bare words` }
}

const words = (html) =>
  html
    .replace(/<(script|style|noscript|template)\b[\s\S]*?<\/\1\s*>/gi, ' ')
    .replace(/<\/?(?:p|div|br|li|tr|h[1-6])\b[^<>]{0,1000}>/gi, '\n')
    .replace(/<[a-z/!][^<>]{0,1000}>/gi, ' ')
    .replace(/[ \t]+/g, ' ')
    .replace(/\n\s*\n+/g, '\n\n')

const signal = AbortSignal.timeout(Math.max(100, Math.floor(asked.left_s * 1000) - 200))
const { url, response } = await follow(signal)
const type = (response.headers.get('content-type') ?? '').toLowerCase()
const kind = type.split(';')[0].trim() || 'application/octet-stream'
const { body, cut } = await load(response).catch((error) =>
  answer({ error: `${url.hostname} broke off: ${error.name === 'TimeoutError' ? 'too slow' : error.message}` }),
)
const told = { url: url.href, status: response.status, type: kind, bytes: body.length, title: '', text: '', note: '' }
if (cut) {
  if (asked.save) answer({ error: `${url.href} has more than ${BODY_MAX_BYTES} bytes` })
  told.note = `; it has more, only the first ${BODY_MAX_BYTES} were read`
}
if (asked.save) writeFileSync(4, body)
const html = kind === 'text/html' || kind === 'application/xhtml+xml'
if (asked.save && response.ok) answer(told)
if (body.subarray(0, 5).toString('latin1') === '%PDF-' || kind === 'application/pdf')
  answer({ error: `${url.href} is a PDF of ${body.length} bytes: store it with \`save\` and read it with python or pdftotext` })
if (!html && !TEXTUAL.test(kind) && (body.includes(0) || !/^(application\/octet-stream|binary)/.test(kind)))
  answer({ error: `${url.href} is ${kind} (${body.length} bytes), no text: store it with \`save\`` })
told.text = decoded(body, type)
if (html && !asked.raw) Object.assign(told, await readable(told.text, url))
told.text = told.text.slice(0, TEXT_MAX_CHARS)
answer(told)
