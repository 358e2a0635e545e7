// A thread that makes the readable text of a page, so that whoever waits for it can give up.
import { parentPort, workerData } from 'node:worker_threads'

async function readable({ html, url }) {
  const [{ parseHTML }, { Readability }, { default: Turndown }, { gfm }] = await Promise.all([
    import('linkedom'),
    import('@mozilla/readability'),
    import('turndown'),
    import('@joplin/turndown-plugin-gfm'),
  ])
  const page = () => {
    const { document } = parseHTML(/<html[\s>]/i.test(html) ? html : `<html><body>${html}</body></html>`)
    for (const link of document.querySelectorAll('a[href]')) {
      const href = link.getAttribute('href')
      if (URL.canParse(href, url)) link.setAttribute('href', new URL(href, url).href)
    }
    document.querySelectorAll('script,style,noscript,template,iframe,svg').forEach((one) => one.remove())
    return document
  }
  const whole = page()
  const title = whole.querySelector('title')?.textContent?.trim() ?? ''
  const article = new Readability(page(), { maxElemsToParse: 100_000 }).parse()
  const turndown = new Turndown({ headingStyle: 'atx', codeBlockStyle: 'fenced', bulletListMarker: '-' })
  turndown.use(gfm)
  turndown.addRule('images', {
    filter: 'img',
    replacement: (_, image) => (image.getAttribute('alt') ? `[image: ${image.getAttribute('alt')}]` : ''),
  })
  const most = whole.body?.textContent?.trim().length ?? 0
  const enough = article && article.textContent.trim().length >= Math.min(200, most / 4)
  const text = turndown.turndown(enough ? article.content : (whole.body?.innerHTML ?? ''))
  return { title: article?.title || title, text: text.replace(/\n{3,}/g, '\n\n') }
}

parentPort.postMessage(await readable(workerData))
