// DuckDB, which sees the workspace's files and nothing else.
import { DuckDBInstance, StatementType } from '@duckdb/node-api'
import { explainsChange } from './sql_text.mjs'

const READS = new Set([StatementType.SELECT, StatementType.EXPLAIN])
const text = (value) => `'${value.replaceAll("'", "''")}'`

export async function run({ path, query, parameters, write, workspace }, table) {
  const instance = await DuckDBInstance.create(path ?? ':memory:', {
    access_mode: path && !write ? 'READ_ONLY' : 'AUTOMATIC',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    allow_community_extensions: 'false',
    threads: '2',
    memory_limit: '1GB',
    temp_directory: '/tmp/duckdb',
  })
  const connection = await instance.connect()
  await connection.run(`SET file_search_path = ${text(workspace)}`)
  await connection.run(`SET allowed_directories = [${text(workspace)}]`)
  await connection.run('SET enable_external_access = false')
  await connection.run('SET lock_configuration = true')
  const statements = await connection.extractStatements(query)
  if (statements.count !== 1) throw new Error('there is more than one statement: run them one by one')
  const statement = await statements.prepare(0)
  if (!write && (!READS.has(statement.statementType) || explainsChange(query)))
    throw new Error(`${StatementType[statement.statementType]} changes something: it needs \`write\``)
  if (parameters.length) statement.bind(parameters)
  const result = await statement.stream()
  if (result.rowsChanged || StatementType.SELECT !== result.statementType) {
    const changed = result.rowsChanged
    if (!READS.has(result.statementType)) return changed ? `${changed} rows changed` : 'done'
  }
  table.head(result.columnNames())
  for await (const rows of result.yieldRows()) {
    if (!rows.every((row) => table.add(row))) break
  }
  return ''
}
