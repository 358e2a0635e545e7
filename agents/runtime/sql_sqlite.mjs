// SQLite by the engine that node has built in.
import { DatabaseSync, constants } from 'node:sqlite'
import { verb } from './sql_text.mjs'

export async function run({ path, query, parameters, write }, table) {
  const database = new DatabaseSync(path, { readOnly: !write, allowExtension: false, timeout: 5000 })
  database.setAuthorizer((action) =>
    action === constants.SQLITE_ATTACH && !(write && verb(query) === 'VACUUM')
      ? constants.SQLITE_DENY
      : constants.SQLITE_OK,
  )
  if (/^VACUUM/.test(verb(query)) && /\binto\b/i.test(query)) throw new Error('VACUUM INTO is not run')
  const statement = database.prepare(query)
  statement.setReadBigInts(true)
  statement.setReturnArrays(true)
  const columns = statement.columns()
  const values = parameters.map((one) => (typeof one === 'boolean' ? Number(one) : one))
  if (!columns.length) {
    const { changes } = statement.run(...values)
    return `${changes} ${changes === 1n ? 'row' : 'rows'} changed`
  }
  table.head(columns.map(({ name }) => name))
  for (const row of statement.iterate(...values)) if (!table.add(row)) break
  return ''
}
