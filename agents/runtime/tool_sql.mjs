// Runs one statement and writes {text, saved} or {error} to 3, all rows as CSV to 4 if asked.
import { readFileSync, writeSync } from 'node:fs'
import { only } from './sql_text.mjs'
import { Table } from './sql_table.mjs'

const asked = JSON.parse(readFileSync(0, 'utf8'))
const answer = (reply) => {
  writeSync(3, JSON.stringify(reply))
  process.exit(0)
}

try {
  only(asked.query)
  const table = new Table(asked)
  const { run } = await import(`./sql_${asked.engine}.mjs`)
  const more = await run(asked, table)
  answer({ text: table.text(more), saved: table.count })
} catch (error) {
  if (error.refused) answer({ refused: error.refused })
  const line = error.position ? ` (at character ${error.position})` : ''
  const hint = error.hint ? `; ${error.hint}` : ''
  answer({ error: `${String(error.message ?? error).slice(0, 4000)}${line}${hint}` })
}
