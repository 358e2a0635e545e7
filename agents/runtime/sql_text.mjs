// What can be told of a statement from its text.

// Comments and quoted parts, which may hold anything.
const QUOTED =
  /--[^\n]*|\/\*[\s\S]*?\*\/|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|(\$\w*\$)[\s\S]*?\1/g

/** The words of the statement without comments and quoted parts. */
export const bare = (query) => query.replace(QUOTED, (part) => (/^(--|\/\*)/.test(part) ? ' ' : "''"))

/** Throws unless `query` is one statement. */
export function only(query) {
  const text = bare(query).trim()
  if (!text.replaceAll(';', '').trim()) throw new Error('there is no statement')
  const trigger = /^create\s+(temp\w*\s+)?trigger\b/i.test(text)
  if (!trigger && /;\s*[^\s;]/.test(text))
    throw new Error('there is more than one statement: run them one by one')
}

/** The first word of the statement, in capitals. */
export const verb = (query) => /^[\s(]*(\w+)/.exec(bare(query))?.[1].toUpperCase() ?? ''

/** Whether it is an EXPLAIN that also carries out something other than a query. */
export const explainsChange = (query) =>
  /^\s*explain\s+(\(.*?\)\s*)?analy[sz]e\b/i.test(bare(query)) &&
  !/^\s*explain\s+(\(.*?\)\s*)?analy[sz]e\s+(\(.*?\)\s*)?(select|with|from|values|table)\b/i.test(bare(query))
