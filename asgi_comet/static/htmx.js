// The extension "comet" of htmx 2: elements that follow channels. See docs/transports.md, "htmx".
;(() => {
  if (!document.currentScript) throw new Error('comet: expected <script src="…/htmx.js">, got a module')
  const HOME = new URL(".", document.currentScript.src)
  const START = /^(now|first|(last:|[\w-]{1,32}\.)(0|[1-9]\d{0,15}))$/
  const MOST = 128 // channels of one connection
  const SECOND = 1000
  const SETTLE = 0.1 * SECOND // in which a swap puts one element in the place of another
  const streams = new Map()
  let api, reloading

  const isBehind = (at, position) => {
    const [[epoch, offset], [other, otherOffset]] = [at.split("."), position.split(".")]
    return epoch !== other || +offset < +otherOffset // not if both are the same relative start
  }

  // The position is an attribute of the element, so the history of htmx restores both together.
  const from = (element) => api.getAttributeValue(element, "comet-from") || "now"
  const place = (element, position) => element.setAttribute("comet-from", position)

  // In a list, what has the id of an item takes the place of that item.
  function show(element, html) {
    const spec = api.getSwapSpecification(element)
    let target = api.getTarget(element)
    if (/^(beforeend|afterbegin)$/.test(spec.swapStyle)) {
      const template = document.createElement("template")
      template.innerHTML = html // a template is inert: nothing in it runs or loads
      const id = template.content.firstElementChild?.id
      const shown = id && target.querySelector(`#${CSS.escape(id)}`)
      if (shown) [target, spec.swapStyle] = [shown, "outerHTML"]
    }
    api.swap(target, html, spec, { contextElement: element })
  }

  function tell(element, type, detail) {
    if (!element.isConnected || !api.triggerEvent(element, `comet:${type}`, detail)) return
    if (type === "full") reloading ??= setTimeout(() => location.reload(), Math.random() * 30 * SECOND)
  }

  // The connection of all elements with the same comet-url.
  class Stream {
    at = new Map() // the position of the connection, by channel
    epochs = new Map() // the last epoch that the server told, by channel
    replaced = new WeakSet() // elements whose place another one has taken
    elements = new Map() // the channel of each element
    failures = 0

    constructor(url) {
      this.url = url
    }

    get channels() {
      return new Set([...this.elements].flatMap(([element, channel]) => (element.isConnected ? channel : [])))
    }

    of = (channel) => [...this.elements.keys()].filter((element) => this.elements.get(element) === channel)
    // Whether an element misses nothing on a connection that is at this position.
    fits = (element, at) => element.isConnected && !isBehind(from(element), at)

    join(element, channel) {
      const start = from(element)
      if (!START.test(start)) throw new TypeError(`comet-from: expected a position or last:10, got ${start}`)
      if (this.channels.add(channel).size > MOST) {
        throw new RangeError(`comet-channel: expected at most ${MOST} channels, got one more, ${channel}`)
      }
      // Without a position of its own, it goes on where the element was whose place it takes.
      const known = this.start(channel)
      if (start === "now" && known?.includes(".")) place(element, known)
      for (const one of this.of(channel)) one.isConnected || this.replaced.add(one)
      this.elements.set(element, channel)
      this.change()
    }

    // Where to begin: a relative start is first, then another epoch, then what is furthest behind.
    start(channel) {
      const turn = ([epoch, offset]) => (offset ? epoch === this.epochs.get(channel) : -1)
      const there = this.of(channel).filter((element) => element.isConnected || !this.replaced.has(element))
      const starts = there.map((element) => from(element).split("."))
      return starts.sort((one, other) => turn(one) - turn(other) || one[1] - other[1])[0]?.join(".")
    }

    change(delay = this.source ? SETTLE : 0) {
      this.timer ??= setTimeout(() => this.update(), delay)
    }

    update() {
      this.timer = clearTimeout(this.timer)
      for (const element of this.elements.keys()) element.isConnected || this.elements.delete(element)
      const channels = [...this.channels]
      const serves = (channel) => this.at.has(channel) && !isBehind(this.start(channel), this.at.get(channel))
      const same = channels.length === this.at.size && channels.every(serves)
      if (this.source && channels.length && same) return
      this.source?.close()
      if (channels.length) this.open(channels)
      else streams.delete(this.url)
    }

    open(channels) {
      this.at = new Map(channels.map((channel) => [channel, this.start(channel)]))
      const query = [...this.at].map(([channel, at]) => `channel=${encodeURIComponent(channel)}&position=${at}`)
      const url = `${this.url}/events?${query.join("&")}&format=text`
      const source = (this.source = new EventSource(url, { withCredentials: true }))
      const on = (type, act) =>
        source.addEventListener(type, ({ data, lastEventId }) => act(data, lastEventId.split(",")))
      on(":open", (data) => {
        this.failures = 0
        for (const [channel, at] of Object.entries(JSON.parse(data).positions)) this.move(channel, at)
      })
      channels.forEach((channel, n) => on(channel, (html, ids) => this.move(channel, ids[n], html)))
      for (const type of ["full", "closed", "forbidden", "replaced", "process-closed"]) {
        on(`:${type}`, (data, ids) => {
          const { channel, reason = type } = JSON.parse(data)
          this.fail(type, channel, reason, ids[channels.indexOf(channel)])
        })
      }
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return
        this.source = null
        const most = Math.min(32, 4 * 2 ** this.failures++) * SECOND
        this.change(most * (0.25 + 0.75 * Math.random()))
      }
    }

    reach(channel, position) {
      this.at.set(channel, position)
      this.epochs.set(channel, position.split(".")[0])
    }

    // Without HTML it is no message: the server says where a start has led.
    move(channel, position, html) {
      const base = this.at.get(channel)
      if (position === base) return
      this.reach(channel, position)
      for (const element of this.of(channel)) {
        const at = from(element)
        const next = html === undefined ? at === base : this.fits(element, base) && isBehind(at, position)
        if (!next) continue
        place(element, position)
        try {
          if (html !== undefined) show(element, html)
        } catch (error) {
          reportError(error)
        }
      }
      if (!this.of(channel).every((element) => this.fits(element, position))) this.change()
    }

    fail(type, channel, reason, position = "-") {
      const base = this.at.get(channel)
      const over = position === "-"
      over ? this.at.delete(channel) : this.reach(channel, position)
      const hit = ([element, name]) => name === (channel ?? name) && (over || from(element) === base)
      const told = [...this.elements].filter(hit)
      for (const [element] of told) over ? this.elements.delete(element) : place(element, position)
      if (type !== "full" && type !== "closed") this.source = this.source.close() // it is over for all channels
      this.update()
      const event = { full: "full", forbidden: "forbidden" }[type] ?? "closed"
      for (const [element, channel] of told) tell(element, event, { channel, reason })
    }
  }

  htmx.defineExtension("comet", {
    init: (internal) => (api = internal),
    getSelectors: () => ["[comet-channel]", "[data-comet-channel]"],
    onEvent(name, { detail: { elt: element } }) {
      const comes = name === "htmx:afterProcessNode"
      if (!comes && name !== "htmx:beforeCleanupElement") return
      for (const stream of streams.values()) {
        if (comes) stream.elements.delete(element)
        stream.change()
      }
      const channel = comes && api.getAttributeValue(element, "comet-channel")
      if (!channel) return
      const { href } = new URL(api.getClosestAttributeValue(element, "comet-url") ?? "", HOME)
      const url = href.replace(/\/$/, "")
      if (!streams.has(url)) streams.set(url, new Stream(url))
      streams.get(url).join(element, channel)
    },
  })
})()
