// PostgreSQL, only read: one statement in a READ ONLY transaction, by the proxy where there is one.
import { connect } from 'node:net'
import pg from 'pg'
import Cursor from 'pg-cursor'
import { verb } from './sql_text.mjs'

const READS = new Set(['SELECT', 'WITH', 'VALUES', 'TABLE', 'SHOW', 'EXPLAIN'])
const BATCH_ROWS = 500

export async function run({ url, query, parameters, left_s: leftS }, table) {
  if (!READS.has(verb(query)))
    throw new Error(`only ${[...READS].join(', ')} run on a server, not ${verb(query) || 'this'}`)
  const address = new URL(url)
  const [host, port] = [address.hostname, Number(address.port || 5432)]
  if (!host || address.searchParams.has('host')) throw new Error('the address names no host')
  const socket = await open(host, port)
  const limitMs = Math.max(1000, Math.floor(leftS * 1000) - 1000)
  const client = new pg.Client({
    connectionString: url,
    stream: () => socket,
    connectionTimeoutMillis: Math.min(15_000, limitMs),
    application_name: 'ai-infrastructure',
  })
  client.on('error', () => undefined)
  await client.connect()
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
  await client.query(`SET LOCAL statement_timeout = ${limitMs}`)
  const cursor = client.query(new Cursor(query, parameters, { rowMode: 'array' }))
  const rows = await cursor.read(1)
  table.head((cursor._result?.fields ?? []).map(({ name }) => name))
  let batch = rows
  while (batch.length && batch.every((row) => table.add(row))) batch = await cursor.read(BATCH_ROWS)
  await cursor.close()
  await client.query('ROLLBACK')
  await client.end()
  return ''
}

/** A socket to the server that pg takes for one it has yet to connect. */
async function open(host, port) {
  const proxy = direct(host) ? undefined : (process.env.HTTPS_PROXY ?? process.env.https_proxy)
  const socket = proxy ? await tunnel(new URL(proxy), host, port) : await dialed(port, host)
  socket.connect = () => {
    process.nextTick(() => {
      socket.emit('connect')
      socket.resume()
    })
    return socket
  }
  return socket
}

const direct = (host) =>
  (process.env.NO_PROXY ?? process.env.no_proxy ?? '')
    .split(',')
    .map((one) => one.trim().replace(/^\*?\./, ''))
    .some((one) => one && (host === one || host.endsWith(`.${one}`)))

function dialed(port, host) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host)
    socket.once('connect', () => resolve(socket))
    socket.once('error', (error) => reject(new Error(`${host}:${port} cannot be reached: ${error.code ?? error.message}`)))
  })
}

async function tunnel(proxy, host, port) {
  const socket = await dialed(Number(proxy.port || 80), proxy.hostname)
  const target = host.includes(':') ? `[${host.replace(/[[\]]/g, '')}]:${port}` : `${host}:${port}`
  const user = decodeURIComponent(`${proxy.username}:${proxy.password}`)
  const login = proxy.username ? `Proxy-Authorization: Basic ${Buffer.from(user).toString('base64')}\r\n` : ''
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${login}\r\n`)
  const head = await new Promise((resolve, reject) => {
    let text = ''
    const take = (piece) => {
      text += piece.toString('latin1')
      if (!text.includes('\r\n\r\n') && text.length < 16_384) return
      socket.off('data', take)
      socket.pause()
      resolve(text)
    }
    socket.on('data', take)
    socket.once('error', reject)
    socket.once('end', () => reject(new Error('the proxy hung up')))
  })
  if (/^HTTP\/1\.[01] 200/.test(head)) {
    socket.removeAllListeners('end')
    socket.removeAllListeners('error')
    return socket
  }
  const status = head.slice(9, 12)
  throw status === '403'
    ? Object.assign(new Error('refused'), { refused: target })
    : new Error(`the proxy answered ${status} for ${target}`)
}
