// The rows of a result as they are shown: some of them, long cells cut; all of them as CSV if asked.
import { writeSync } from 'node:fs'

const CELL_CHARS = 300
const TEXT_MAX_CHARS = 45_000
const SAVED_MAX_BYTES = 50_000_000

/** One value as text; null stays null. */
export function shown(value) {
  if (value === null || value === undefined) return null
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString()
  if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`
  if (typeof value === 'object')
    return value.constructor === Object || Array.isArray(value) ? JSON.stringify(value, plain) : String(value)
  return String(value)
}

const plain = (_, value) => (typeof value === 'bigint' ? String(value) : value)
const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
const csv = (row) => `${row.map((cell) => (cell === null ? '' : quoted(cell))).join(',')}\n`
const cut = (text) => (text.length > CELL_CHARS ? `${text.slice(0, CELL_CHARS)}… (${text.length} characters)` : text)

export class Table {
  constructor({ rows, format, save }) {
    Object.assign(this, { limit: rows, format, save })
    this.columns = []
    this.rows = []
    this.count = 0
    this.more = false
    this.bytes = 0
  }

  head(columns) {
    this.columns = columns.map(String)
    if (this.save) this.#store(this.columns)
  }

  /** Take a row in; false: no more are wanted. */
  add(values) {
    const full = this.rows.length >= this.limit
    if (full && !this.save) {
      this.more = true
      return false
    }
    const row = values.map(shown)
    this.count += 1
    if (!full) this.rows.push(row)
    if (this.save) this.#store(row)
    return true
  }

  #store(row) {
    const line = Buffer.from(csv(row))
    this.bytes += line.length
    if (this.bytes > SAVED_MAX_BYTES)
      throw new Error(`the result has more than ${SAVED_MAX_BYTES} bytes: ask for less`)
    writeSync(4, line)
  }

  text(more = '') {
    const lines = this.columns.length ? [this.format === 'csv' ? csv(this.columns).trimEnd() : this.#line(this.columns)] : []
    if (lines.length && this.format !== 'csv') lines.push(`|${this.columns.map(() => '---').join('|')}|`)
    let chars = lines.join('').length
    let printed = 0
    for (const row of this.rows) {
      const cells = row.map((cell) => (cell === null ? null : cut(cell)))
      const line = this.format === 'csv' ? csv(cells).trimEnd() : this.#line(cells)
      chars += line.length + 1
      if (chars > TEXT_MAX_CHARS) break
      lines.push(line)
      printed += 1
    }
    const all = this.more ? `more than ${this.count}` : this.count
    const whole = printed === this.count && !this.more
    if (this.columns.length)
      lines.push(whole ? `(${all} ${all === 1 ? 'row' : 'rows'})` : `(${printed} of ${all} rows shown)`)
    if (more) lines.push(more)
    return lines.join('\n') || 'done'
  }

  #line(cells) {
    const escaped = (cell) => cell.replaceAll('|', '\\|').replace(/\r?\n/g, '⏎')
    return `| ${cells.map((cell) => (cell === null ? 'NULL' : escaped(cell))).join(' | ')} |`
  }
}
