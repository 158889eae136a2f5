// The browser client of asgi_comet, described in comet.d.ts. Each reader of a channel has a position,
// handed back on every connection; what was missed the server decides.

const SECOND = 1000
const FIRST_EVENT = 4 * SECOND
const SILENCE = 35 * SECOND
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

export class CometError extends Error {
  constructor(message, data) {
    super(message)
    Object.assign(this, { name: new.target.name }, data)
  }
}
export class ChannelFull extends CometError {}
export class ChannelClosed extends CometError {}
export class ProcessClosed extends CometError {}

export const backoff = (attempt, random = Math.random) =>
  random() * Math.min(20 * SECOND, 2 ** attempt * 0.5 * SECOND)

export const retryAfter = (header) => header * SECOND || 0

export const idleDelay = ([a, b, c], idleFor, processTimeout = Infinity) =>
  Math.min(a * idleFor + b, c, processTimeout / 2.5)

export const ACTIVITY = {
  alwaysActive: false,
  activeUntilTimeout: false,
  timeout: 180,
  timeBetweenRequests: 0,
  timeBetweenRequestsWhenIdle: [0.5, 60, 600],
}

export const mostReactive = (one, other) => ({
  alwaysActive: one.alwaysActive || other.alwaysActive,
  activeUntilTimeout: one.activeUntilTimeout || other.activeUntilTimeout,
  timeout: Math.max(one.timeout, other.timeout),
  timeBetweenRequests: Math.min(one.timeBetweenRequests, other.timeBetweenRequests),
  timeBetweenRequestsWhenIdle: one.timeBetweenRequestsWhenIdle.map((figure, at) =>
    Math.min(figure, other.timeBetweenRequestsWhenIdle[at]),
  ),
})

export function isBehind(position, other) {
  const [epoch, offset] = position.split(".")
  const [otherEpoch, otherOffset] = other.split(".")
  return epoch === otherEpoch && +offset < +otherOffset
}

export function eventParser() {
  let rest = ""
  return (text) => {
    const events = (rest + text).split("\n\n")
    rest = events.pop()
    const read = (event) => Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s)))
    return events.map(read).filter(({ data }) => data)
  }
}

class Consumer {
  #queue = []
  #waiting = []
  #over = false

  constructor(follower, name, options) {
    const start = options.from ?? "now"
    const position = /^(now|last:\d+)$/.test(start) ? null : start
    Object.assign(this, { follower, name, options, start, position })
  }

  deliver(value, position) {
    this.position = position
    const { onmessage } = this.options
    if (!onmessage) return this.#say({ value, done: false })
    try {
      onmessage(value, position)
    } catch (error) {
      reportError(error)
    }
  }

  fail(error) {
    if (this.#over) return
    const { onmessage, onfull, onclosed, onerror } = this.options
    const own = { ChannelFull: onfull, ChannelClosed: onclosed }[error.name]
    if (!onmessage) this.#say(error)
    this.close()
    if (onmessage) (own?.call ? own : onerror || reportError)(error) // it must not be missed
  }

  close() {
    this.#over = true
    this.follower.remove(this)
    for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true })
  }

  next() {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      if (this.#queue.length) this.#say(this.#queue.shift())
      else if (this.#over) this.close()
    })
  }

  return() {
    this.#queue = []
    this.close()
    return this.next()
  }

  [Symbol.asyncIterator]() {
    return this
  }

  #say(result) {
    if (!this.#waiting.length) return this.#queue.push(result)
    const { resolve, reject } = this.#waiting.shift()
    result instanceof Error ? reject(result) : resolve(result)
  }
}

// The kind is a status, or that the process is gone.
class Failure extends CometError {
  constructor(kind, wait) {
    super(kind, { kind, wait })
  }
}

const patience = (late) => {
  let timer
  return (milliseconds) => {
    clearTimeout(timer)
    timer = milliseconds && setTimeout(late, milliseconds)
  }
}

async function request(url, init) {
  const answer = await fetch(url, { credentials: "include", cache: "no-store", ...init })
  if (answer.ok) return answer
  const wait = retryAfter(answer.headers.get("Retry-After"))
  if (answer.status === 400) console.error("comet:", await answer.text())
  throw new Failure({ 403: "gone", 410: "gone", 503: "deactivated" }[answer.status], wait)
}

const post = (url, body, signal = AbortSignal.timeout(FIRST_EVENT)) =>
  request(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  })

async function overHTTP(signal, work) {
  const stop = new AbortController()
  const wait = patience(() => stop.abort())
  signal.addEventListener("abort", () => stop.abort())
  try {
    await work(stop.signal, wait)
  } catch (failure) {
    if (!signal.aborted) throw failure
  } finally {
    wait()
  }
}

const websocket = (follower, signal) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(follower.url.replace(/^http/, "ws") + "/socket", "comet.v1")
    const send = (frame) => socket.send(JSON.stringify(frame))
    const end = (failure) => {
      wait()
      follower.change = follower.acknowledge = socket.onmessage = socket.onclose = null
      socket.onopen = () => socket.close()
      socket.close()
      failure ? reject(failure) : resolve()
    }
    const wait = patience(() => end(new Failure()))
    wait(FIRST_EVENT)
    signal.addEventListener("abort", () => end())
    socket.onopen = () => {
      send({ subscribe: follower.canary() })
      send({ subscribe: follower.starts() })
      follower.acknowledge = (ack) => send({ ack })
    }
    follower.change = (name) => {
      if (socket.readyState !== 1) return
      // What comes after the canary is of the new subscription.
      send({ unsubscribe: [name], subscribe: follower.canary() })
      const starts = follower.starts([name])
      if (starts[name]) send({ subscribe: starts })
    }
    socket.onmessage = ({ data }) => {
      wait(SILENCE)
      const { events, error } = JSON.parse(data)
      if (error) console.error("comet:", error)
      else follower.hear(events)
    }
    socket.onclose = ({ code }) =>
      end(new Failure({ 1012: "connecting", 1013: "deactivated", 4000: "gone", 4001: "gone" }[code]))
  })

const sse = (follower, signal) =>
  overHTTP(signal, async (signal, wait) => {
    wait(FIRST_EVENT)
    const starts = Object.entries(follower.starts())
    const query = new URLSearchParams(starts.map(([name]) => ["channel", name]))
    for (const [, start] of starts) query.append("position", start)
    const { body } = await request(`${follower.url}/events?${query}`, { signal })
    const reader = body.pipeThrough(new TextDecoderStream()).getReader()
    const parse = eventParser()
    let kind
    follower.acknowledge = (ack) => post(`${follower.url}/ack`, ack).catch(() => {})
    for (;;) {
      const { value, done } = await reader.read()
      if (done) throw new Failure(kind)
      if (value.startsWith("retry")) kind = "connecting" // it may say no more
      const events = parse(value).flatMap((event) => fromSSE(event, starts))
      if (!follower.heard && !events.length) continue
      wait(SILENCE)
      follower.hear(events)
    }
  })

function fromSSE({ event, data, id = "" }, starts) {
  const of = (name) => id.split(",")[starts.findIndex(([channel]) => channel === name)]
  const found = JSON.parse(data)
  if (event[0] !== ":") return { channel: event, position: of(event), data: found }
  const { channel, reason, positions } = found
  if (positions) {
    return Object.entries(positions).map(([name, position]) => ({ channel: name, position }))
  }
  if (!channel) throw new Failure(event === ":deactivated" ? "deactivated" : "gone")
  const position = of(channel) === "-" ? undefined : of(channel)
  return { channel, error: event.slice(1), reason, position }
}

const poll = (follower, signal) =>
  overHTTP(signal, async (signal, wait) => {
    // The first is answered at once.
    for (let hold = false; !signal.aborted && follower.channels.size; hold = true) {
      wait(hold ? MINUTE : FIRST_EVENT)
      const body = { channels: follower.starts(), idle: !hold }
      const { events, replaced } = await (await post(`${follower.url}/poll`, body, signal)).json()
      if (replaced) throw new Failure("gone")
      follower.hear(events)
      wait()
      await follower.pause()
      if (follower.resting) return
    }
  })

const TRANSPORTS = { websocket, sse, poll }

function stored(url, value) {
  try {
    const key = `comet ${new URL(url).origin}`
    if (value !== undefined) localStorage[key] = value
    return localStorage[key]
  } catch {}
}

export function choices(text, now = Date.now()) {
  const names = Object.keys(TRANSPORTS)
  const [name, until] = (text ?? "").split(" ")
  return until > now ? names.slice(Math.max(0, names.indexOf(name))) : names
}

class Follower {
  lastData = Date.now()
  change = null
  acknowledge = null
  channels = new Map()
  #asked = 0
  #answered = 0
  #acks = null
  #failures = 0
  #silent
  #stop = new AbortController()

  constructor(comet, open) {
    Object.assign(this, { comet, open })
    this.#run()
  }

  add(consumer) {
    const { name, start } = consumer
    const channel = this.channels.get(name) ?? { consumers: new Set() }
    const placed = [...channel.consumers].find(({ position }) => position)
    channel.consumers.add(consumer)
    this.channels.set(name, channel)
    if (placed && start === "now") consumer.position = placed.position
    else this.#changed(name)
  }

  remove(consumer) {
    const channel = this.channels.get(consumer.name)
    if (!channel?.consumers.delete(consumer) || channel.consumers.size) return
    this.channels.delete(consumer.name)
    this.#changed(consumer.name)
  }

  // Where to begin: the first who has no place decides, else who is furthest behind.
  starts(names = this.channels.keys()) {
    const starts = { __proto__: null }
    for (const name of names) {
      const channel = this.channels.get(name)
      if (!channel) continue
      const consumers = [...channel.consumers]
      const behind = (one, other) => (isBehind(other.position, one.position) ? other : one)
      const unplaced = consumers.find(({ position }) => !position)
      channel.asked = starts[name] = unplaced?.start ?? consumers.reduce(behind).position
      channel.floor = null
      channel.from = this.#asked
    }
    return starts
  }

  // No channel: answered at once, and in its turn.
  canary() {
    this.#asked++
    return { ":": "now" }
  }

  hear(events) {
    if (!this.heard && !this.resting) this.#remember(this)
    this.heard = Date.now()
    this.#failures = 0
    this.comet.tell("online", this)
    for (const event of events) {
      if (event.channel === ":") this.#answered++
      const channel = this.channels.get(event.channel)
      if (!channel || channel.from > this.#answered) continue
      if (event.error) this.#fail(channel, event)
      else if ("data" in event) this.#deliver(channel, event)
      else this.#place(channel, event)
    }
  }

  each(act) {
    for (const { consumers } of [...this.channels.values()]) [...consumers].forEach(act)
  }

  again() {
    this.#stop.abort()
    this.poke()
  }

  poke() {}

  pause() {
    const seconds = this.comet.idleDelay(this.transport) || this.comet.activity.timeBetweenRequests
    return seconds && this.#wait(seconds * SECOND)
  }

  #deliver({ consumers, floor }, { channel, position, data }) {
    this.lastData = Date.now()
    for (const consumer of [...consumers]) {
      const at = consumer.position
      if (!at || at === position || isBehind(position, at) || (floor && isBehind(at, floor))) continue
      consumer.deliver(data, position)
    }
    if (channel[0] !== "~") return
    if (!this.#acks) {
      this.#acks = {}
      setTimeout(() => {
        this.acknowledge?.(this.#acks)
        this.#acks = null
      }, SECOND)
    }
    this.#acks[channel] = position
  }

  #place(channel, { channel: name, position }) {
    const consumers = [...channel.consumers]
    channel.floor = position
    for (const consumer of consumers) {
      if (!consumer.position && consumer.start === channel.asked) consumer.position = position
    }
    if (consumers.some(({ position: at }) => !at || isBehind(at, position))) this.#changed(name)
  }

  #fail({ consumers, asked }, { channel: name, error, position, reason = error }) {
    for (const consumer of [...consumers]) {
      if (error !== "full") {
        consumer.fail(new ChannelClosed(`${name}: ${reason}`, { channel: name, reason }))
      } else if (position && consumer.position && consumer.position !== asked) {
        continue
      } else if (position && consumer.options.onfull === "resume") consumer.position = position
      else consumer.fail(new ChannelFull(`${name}: messages were missed`, { channel: name, position }))
    }
    if (consumers.size) this.#changed(name)
  }

  #changed(name) {
    const channel = this.channels.get(name)
    if (channel) channel.from = Infinity
    this.poke()
    if (this.change) this.change(name)
    else queueMicrotask(() => this.change ?? this.#stop.abort())
  }

  async #run() {
    while (!this.comet.closed) {
      if (!this.channels.size || this.comet.asleep) await this.#wait()
      else await this.#attempt()
    }
  }

  async #attempt() {
    const { signal } = (this.#stop = new AbortController())
    this.heard = 0
    try {
      this.url = await this.open()
      await this.#follow(signal)
    } catch ({ kind, wait }) {
      if (kind === "gone") this.comet.renew(this)
      const pause = { deactivated: 5 + 10 * Math.random(), connecting: 0.5 + Math.random() }[kind]
      this.#silent = this.heard && Date.now() - this.heard >= SILENCE
      this.comet.tell(pause ? kind : this.heard ? "connecting" : "offline", this)
      await this.#wait(Math.max(backoff(this.#failures++), wait || pause * SECOND || 0))
    }
  }

  async #follow(signal) {
    for (const name of choices(stored(this.url))) {
      if (signal.aborted) return
      this.transport = name
      this.resting = this.comet.idleDelay(name)
      try {
        this.#asked = this.#answered = 0
        return await (this.resting ? poll : TRANSPORTS[name])(this, signal)
      } catch (failure) {
        if (this.heard || failure.kind || this.resting || name === "poll") throw failure
        if (this.#silent) this.comet.tell("offline", this)
      }
    }
  }

  // For a minute: the server may be starting. Then for an hour.
  #remember({ url, transport }) {
    const text = stored(url)
    if (transport === "websocket") stored(url, "")
    else if (transport !== choices(text)[0]) {
      stored(url, `${transport} ${Date.now() + (text ? HOUR : MINUTE)}`)
    }
  }

  #wait(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds >= 0 && setTimeout(resolve, milliseconds)
      this.poke = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

class Comet extends EventTarget {
  status = "connecting"
  asleep = false
  #followers = new Map()
  #home
  #page = readPage()
  #process = null
  #hidden = 0
  #timer
  #ear = new AbortController()

  constructor({ url, ...wish } = {}) {
    super()
    this.prefix = new URL(url ?? ".", url ? location : import.meta.url).href.replace(/\/$/, "")
    this.#home = new Follower(this, () => this.process().then(({ url }) => url))
    this.#followers.set(this.prefix, this.#home)
    const { signal } = this.#ear
    addEventListener("online", () => this.#again(), { signal })
    addEventListener("offline", () => this.#again(), { signal })
    document.addEventListener("visibilitychange", () => this.#turn(), { signal })
    addEventListener("pageshow", ({ persisted }) => persisted && this.#sleep(false), { signal })
    const leave = ({ persisted }) => (persisted ? this.#sleep(true) : this.close())
    addEventListener("pagehide", leave, { signal })
    this.configure(wish)
  }

  get closed() {
    return this.status === "closed"
  }

  channel(name, options = {}) {
    const reference = this.#page.channels?.[name]
    if (!reference?.url || options.from) return this.#consume(this.prefix, name, options)
    const gone = !this.#page.process && reference.channel[0] === "~"
    return this.open(reference, gone ? { from: "now", ...options } : options)
  }

  open({ url, channel, position }, options = {}) {
    const { href } = new URL(url, this.prefix)
    const ours = `${href}/`.startsWith(`${this.prefix}/`)
    return this.#consume(ours ? this.prefix : href, channel, { from: position, ...options })
  }

  process() {
    this.#process ??= this.#openProcess().catch((failure) => {
      this.#process = null
      throw failure
    })
    return this.#process
  }

  async fetch(input, init) {
    const { process } = await this.process()
    const asked = new Request(input, init)
    if (new URL(asked.url).origin === new URL(this.prefix).origin) {
      asked.headers.set("Comet-Process", process)
    }
    return fetch(asked)
  }

  configure(wish) {
    const added = { ...ACTIVITY, ...wish }
    this.activity = mostReactive(added, this.activity ?? added)
    this.#turn()
  }

  close() {
    if (this.closed) return
    this.tell("closed")
    this.#ear.abort()
    clearTimeout(this.#timer)
    this.#followers.forEach((follower) => follower.each((consumer) => consumer.close()))
    this.#again()
    this.#process?.then(({ url }) => navigator.sendBeacon(`${url}/close`), () => {})
  }

  tell(status, follower = this.#home) {
    if (follower !== this.#home || status === this.status || this.closed) return
    this.status = status
    this.dispatchEvent(new Event("status"))
  }

  renew(follower) {
    if (follower !== this.#home) return
    this.#process = null
    this.#page.process = null
    follower.each((consumer) => consumer.name[0] === "~" && consumer.fail(new ProcessClosed("process closed")))
    this.dispatchEvent(new Event("process-closed"))
  }

  idleDelay(transport) {
    const { alwaysActive, activeUntilTimeout, timeout, timeBetweenRequestsWhenIdle } = this.activity
    const since = Math.max(this.#hidden, activeUntilTimeout && this.#home.lastData)
    const idleFor = (Date.now() - since) / SECOND - (transport === "websocket" && timeout)
    if (!this.#hidden || alwaysActive || idleFor < 0) return 0
    return idleDelay(timeBetweenRequestsWhenIdle, idleFor, this.processTimeout)
  }

  #again() {
    this.#followers.forEach((follower) => follower.again())
  }

  #consume(prefix, name, options) {
    const follower = this.#followers.get(prefix) ?? new Follower(this, () => prefix)
    this.#followers.set(prefix, follower)
    const consumer = new Consumer(follower, name, options)
    follower.add(consumer)
    return consumer
  }

  async #openProcess() {
    const opened = this.#page.process ? this.#page : await (await post(`${this.prefix}/open`)).json()
    this.processTimeout = opened.processTimeout
    return { ...opened, url: new URL(opened.url, this.prefix).href }
  }

  #turn() {
    clearTimeout(this.#timer)
    this.#hidden = document.hidden && (this.#hidden || Date.now())
    this.#followers.forEach((follower) => {
      if (!this.idleDelay(follower.transport)) follower.poke()
      else if (!follower.resting) follower.again()
    })
    if (this.#hidden) this.#timer = setTimeout(() => this.#turn(), (this.activity.timeout || 1) * SECOND)
  }

  #sleep(asleep) {
    this.asleep = asleep
    this.#again()
  }
}

// A duplicated tab, or a page from a cache, opens a process of its own.
function readPage() {
  const page = JSON.parse(document.querySelector("script#comet")?.text || "{}")
  try {
    if (sessionStorage[page.url]) page.process = null
    sessionStorage[page.url] = "taken"
  } catch {}
  return page
}

export const connect = (options) => new Comet(options)
