// Runs one command in a sandbox and decides each of its connections.
//
// `driver.mjs run EVENTS CONTROL INFO` (descriptors): EVENTS takes a line of JSON for each
// connection; CONTROL gives first the settings, then {"allow": "host:port"} lines; INFO is where
// bubblewrap tells its child. 0, 1 and 2 are the command's own. When CONTROL ends, whoever started
// us is gone: so are we, and with us the sandbox.
import { spawn } from 'node:child_process'
import { writeSync } from 'node:fs'
import { Socket, isIP } from 'node:net'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [EVENTS, CONTROL, INFO] = process.argv.slice(3).map(Number)

const tell = (event) => {
  try {
    writeSync(EVENTS, `${JSON.stringify(event)}\n`)
  } catch (error) {
    if (error.code !== 'EPIPE') throw error
  }
}

/** A host as it is dialed: lower case, every spelling of an address as that address. */
export function canonical(host) {
  const bare = host.replace(/^\[|\]$/g, '')
  try {
    const url = new URL(`http://${isIP(bare) === 6 ? `[${bare}]` : bare}/`)
    if (url.username || url.password || url.pathname !== '/' || url.search || url.hash) return ''
    const name = url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')
    const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(name)
    if (!mapped) return name
    const [high, low] = [parseInt(mapped[1], 16), parseInt(mapped[2], 16)]
    return [high >> 8, high & 255, low >> 8, low & 255].join('.')
  } catch {
    return ''
  }
}

const isLoopbackName = (host) => host === 'localhost' || host.endsWith('.localhost')

/** The rule that lets `host` (canonical) be reached at `port`. A pattern never covers an address. */
export function ruleFor(rules, host, port) {
  const patterns = isIP(host) === 0 && !isLoopbackName(host)
  return rules.find(
    (rule) =>
      rule.port === port &&
      (rule.host === host ||
        (patterns && rule.host === '*') ||
        (patterns && rule.host.startsWith('*.') && host.endsWith(rule.host.slice(1)))),
  )
}

/** `host:port` as a rule; undefined when it is none. */
export function ruleOf(text, index = false) {
  const at = text.lastIndexOf(':')
  const [name, port] = [text.slice(0, at), Number(text.slice(at + 1))]
  const pattern = /^\*(\.|$)/.test(name)
  const host = pattern ? name.toLowerCase() : canonical(name)
  if (at < 1 || !host || !Number.isInteger(port) || port < 1 || port > 65535) return undefined
  return { host, port, index }
}

async function main(lines) {
  const first = JSON.parse((await lines.next()).value)
  const { SandboxManager } = await import(pathToFileURL(first.library).href)
  const rules = first.rules.map(({ address, index }) => ruleOf(address, index)).filter(Boolean)

  const ask = async ({ host, port }) => {
    const name = canonical(host)
    const rule = name ? ruleFor(rules, name, port) : undefined
    const event = { host: name || '(malformed)', port, allowed: rule !== undefined }
    tell({ ...event, index: rule?.index ?? false })
    return rule !== undefined || { allow: false, reason: first.reason }
  }
  await SandboxManager.initialize(first.settings, ask)
  watchDenials(SandboxManager.getSandboxViolationStore())
  const wrapped = await SandboxManager.wrapWithSandbox(first.command, undefined, undefined, undefined, {
    commandId: "hands",
  })
  const child = spawn('/bin/sh', ['-c', `exec ${wrapped}`], {
    cwd: '/',
    env: { ...process.env, ...first.wrapper },
    stdio: ['inherit', 'inherit', 'inherit', 'ignore', 'ignore', INFO],
  })
  const end = async (code) => {
    await SandboxManager.reset()
    process.exit(code)
  }
  child.on('error', (error) => {
    process.stderr.write(`${error.message}\n`)
    void end(1)
  })
  child.on('exit', (code, signal) => void end(signal ? 1 : code))
  for await (const line of lines) {
    const rule = ruleOf(String(JSON.parse(line).allow))
    if (rule) rules.push(rule)
    tell({ added: rule ? `${rule.host}:${rule.port}` : null })
  }
  child.kill('SIGKILL')
}

/** A name that was let through and then led to an address that is closed: told like a refusal. */
function watchDenials(store) {
  let seen = store.getTotalCount()
  store.subscribe((violations) => {
    const fresh = store.getTotalCount() - seen
    seen += fresh
    for (const { line } of fresh > 0 ? violations.slice(-fresh) : []) {
      const found = /^deny network-outbound (.+):(\d+) \((.*)\)$/.exec(line)
      if (!found?.[3].startsWith('resolved to')) continue
      const host = canonical(found[1]) || '(malformed)'
      tell({ host, port: Number(found[2]), allowed: false, index: false, why: found[3] })
    }
  })
}

if (process.argv[2] === 'run') {
  const control = createInterface({ input: new Socket({ fd: CONTROL, readable: true }) })
  main(control[Symbol.asyncIterator]()).catch((error) => {
    process.stderr.write(`${error.message}\n`)
    process.exit(1)
  })
}
