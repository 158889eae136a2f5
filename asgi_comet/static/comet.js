// See comet.d.ts for the interface, docs/browser.md for the inside.

const SECOND = 1000
const FIRST_EVENT = 4 * SECOND
const SILENCE = 35 * SECOND
const RELOAD = 30 * SECOND
const LONGEST = 2e9 // ms, the longest timer

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

export const idleDelay = ([a, b, c], idleFor, processTimeout = Infinity) =>
  Math.min(a * idleFor + b, c, processTimeout / 2.5)

export const ACTIVITY = {
  alwaysActive: false,
  activeUntilTimeout: false,
  timeout: 180,
  timeBetweenRequests: 0,
  timeBetweenRequestsWhenIdle: [0.5, 60, 600],
}

const least = (one, other) =>
  one.map?.((figure, at) => Math.min(figure, other[at])) ?? Math.min(one, other)

export function mostReactive(one, other) {
  const most = { ...one }
  for (const [key, wish] of Object.entries(other)) {
    if (wish === undefined) continue
    if (key.includes("Between")) most[key] = least(wish, most[key] ?? wish)
    else if (!(wish <= most[key])) most[key] = wish
  }
  return most
}

// Missing wishes have the default.
export const merge = (wishes) => ({ ...ACTIVITY, ...wishes.reduce(mostReactive, {}) })

export function isBehind(position, other) {
  const [epoch, offset] = position.split(".")
  const [otherEpoch, otherOffset] = other.split(".")
  return epoch !== otherEpoch || +offset < +otherOffset
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

const REASONS = ["ended", "failed", "unknown", "forbidden"]
const ENDS = { ChannelFull: "full", ProcessClosed: "process-closed" }

function call(callback, ...told) {
  try {
    callback(...told)
  } catch (error) {
    reportError(error)
  }
}

// `at` is the last received position, `done` the last consumed one.
class Consumer {
  #open = [] // received, not consumed
  #queue = [] // not yet taken by a loop
  #held // taken by a loop, whose body runs
  #waiting = []
  closed = null

  constructor(follower, name, options, at) {
    if (typeof name !== "string" || !/^\P{Cs}+$/su.test(name) || new Blob([name]).size > 255) {
      throw new TypeError(`expected a name of 1 to 255 bytes, got ${name}`)
    }
    if (!/^(now|first|(last:|[\w-]{1,32}\.)(0|[1-9]\d{0,15}))$/.test(at)) {
      throw new TypeError(`expected now, first, last:10 or a position, got ${at}`)
    }
    Object.assign(this, { follower, name, options, at, done: at })
  }

  get position() {
    const at = this.#queue.length ? (this.#held?.position ?? this.done) : this.at
    return at.includes(".") ? at : null
  }

  deliver(value, position) {
    if (this.closed) return
    const message = { value, position }
    this.at = position
    this.#open.push(message)
    if (value === undefined) this.#consume(message)
    else this.options.onmessage ? this.#call(message) : this.#say(message)
  }

  // To the function, else to a loop, else to the console. The end of a channel is not an error.
  fail(error) {
    if (this.closed) return
    const { onmessage, onfull, onclosed, onerror } = this.options
    const { name, message, position, reason = ENDS[name] } = error
    if (position && onfull === "resume") return this.deliver(undefined, position)
    this.follower.comet.log(message, position ?? "")
    const own = { ChannelFull: onfull, ChannelClosed: onclosed }[name]
    const told = own?.call ? own : onerror || (reason === "ended" ? () => {} : onmessage && reportError)
    if (!told) this.#say(error)
    this.#close(reason)
    if (told) call(told, error)
  }

  close() {
    this.#close("closed")
  }

  next() {
    if (this.#held) this.#consume(this.#held)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      if (this.#queue.length) this.#say(this.#queue.shift())
      else if (this.closed) this.close()
    })
  }

  return() {
    this.at = this.position ?? this.at
    this.#queue = []
    this.close()
    return this.next()
  }

  [Symbol.asyncIterator]() {
    return this
  }

  #close(reason) {
    this.closed ??= reason
    this.follower.remove(this)
    for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true })
  }

  #say(result) {
    if (!this.#waiting.length) return this.#queue.push(result)
    const { resolve, reject } = this.#waiting.shift()
    if (result instanceof Error) return reject(result)
    this.#held = result
    resolve({ value: result.value, done: false })
    if (this.#waiting.length) this.#consume(result)
  }

  async #call(message) {
    try {
      await this.options.onmessage(message.value, message.position)
    } catch (error) {
      reportError(error)
    }
    this.#consume(message)
  }

  #consume(message) {
    this.#held = null
    message.consumed = true
    while (this.#open[0]?.consumed) this.done = this.#open.shift().position
    this.follower.consumed(this)
  }
}

const KINDS = {
  400: "offline",
  403: "gone",
  410: "gone",
  503: "deactivated",
  1012: "connecting",
  1013: "deactivated",
  4000: "gone",
  4001: "gone",
  4400: "offline",
}

const failure = (code, wait) => new CometError(code, { kind: KINDS[code], wait })

async function request(comet, url, init) {
  const headers = new Headers(await comet.headersFor(url)?.())
  if (init.method) headers.set("Content-Type", "application/json")
  const answer = await fetch(url, { credentials: "include", cache: "no-store", ...init, headers })
  if (answer.ok) return answer
  if (answer.status === 400) console.error("comet:", await answer.text())
  throw failure(answer.status, answer.headers.get("Retry-After") * SECOND)
}

const post = (comet, url, body, init = { signal: AbortSignal.timeout(FIRST_EVENT) }) =>
  request(comet, url, { method: "POST", body: JSON.stringify(body), ...init })

const websocket = (follower, signal, wait) =>
  new Promise((_, reject) => {
    const socket = new WebSocket(follower.url.replace(/^http/, "ws") + "/socket?ack=1", "comet.v1")
    const send = (frame) => socket.send(JSON.stringify(frame))
    signal.addEventListener("abort", () => {
      socket.onmessage = null
      socket.onopen = () => socket.close()
      socket.close()
    })
    follower.change = (...names) => {
      if (socket.readyState !== 1) return
      // Messages after the canary belong to the new subscription.
      send({ unsubscribe: names, subscribe: follower.canary() })
      const subscribe = follower.starts(names)
      if (Object.keys(subscribe)[0]) send({ subscribe })
    }
    socket.onopen = () => {
      follower.change(...follower.channels.keys())
      follower.acknowledge = (ack) => send({ ack })
    }
    socket.onmessage = ({ data }) => {
      wait(SILENCE)
      const { events, error } = JSON.parse(data)
      error ? console.error("comet:", error) : follower.hear(events)
    }
    socket.onclose = ({ code }) => reject(failure(code))
  })

async function sse(follower, signal, wait) {
  const starts = Object.entries(follower.starts())
  const query = starts.map(([name, start]) => `&channel=${encodeURIComponent(name)}&position=${start}`)
  const { body } = await request(follower.comet, `${follower.url}/events?ack=1${query.join("")}`, { signal })
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  const parse = eventParser()
  let code
  follower.acknowledge = (acks) => post(follower.comet, `${follower.url}/ack`, acks).catch(() => follower.owe(acks))
  for (;;) {
    const { value, done } = await reader.read()
    if (done) throw failure(code)
    if (value.startsWith("retry")) code = 1012
    const events = parse(value).flatMap((event) => fromSSE(event, starts))
    if (!follower.heard && !events.length) continue
    wait(SILENCE)
    follower.hear(events)
  }
}

function fromSSE({ event, data, id = "", ahead }, starts) {
  const of = (name) => id.split(",")[starts.map(([channel]) => channel).indexOf(name)]
  const found = JSON.parse(data)
  if (event[0] !== ":" || of(event)) return { channel: event, position: of(event), data: found, ahead }
  const { channel, reason, positions } = found
  if (positions) return Object.entries(positions).map(([channel, position]) => ({ channel, position }))
  if (!channel) throw failure(event === ":deactivated" ? 1013 : 4001)
  const position = of(channel) === "-" ? undefined : of(channel)
  return { channel, error: event.slice(1), reason, position }
}

async function poll(follower, signal, wait) {
  // The server answers the first poll at once.
  for (let hold = false; !signal.aborted; hold = true) {
    if (hold) wait(SILENCE, () => follower.again())
    const channels = follower.starts()
    if (!Object.keys(channels)[0]) channels[":"] = "now"
    const body = { channels, idle: !hold }
    const answer = await post(follower.comet, `${follower.url}/poll?ack=1`, body, { signal })
    wait(SILENCE)
    const { events, replaced } = await answer.json()
    if (replaced) throw failure(4000)
    follower.hear(events)
    wait()
    await follower.pause()
    if (follower.resting) return
  }
}

const TRANSPORTS = { websocket, sse, poll }

function stored(name, value) {
  try {
    if (value !== undefined) localStorage[`comet ${name}`] = value
    return localStorage[`comet ${name}`]
  } catch {}
}

export function choices(text, now = Date.now()) {
  const names = Object.keys(TRANSPORTS)
  const [name, until] = (text ?? "").split(" ")
  return until > now ? names.slice(Math.max(0, names.indexOf(name))) : names
}

// The place of a consumer without one, else of another epoch, else the one furthest behind.
function furthest({ consumers, epoch: current }, place) {
  const turn = (consumer) => {
    const [epoch, offset] = consumer[place].split(".")
    return !offset ? -2 : epoch === (current ?? epoch) ? offset : -1
  }
  return [...consumers].sort((one, other) => turn(one) - turn(other))[0][place]
}

// Subscribing acknowledges, so on demand it waits until all messages are consumed.
const isDue = (channel) => !channel.ahead || !isBehind(furthest(channel, "done"), furthest(channel, "at"))

class Follower {
  lastData = Date.now()
  channels = new Map()
  #asked = 0
  #answered = 0
  #acks
  #due
  #digests
  #failures = 0
  #silent
  #again

  constructor(comet, open) {
    Object.assign(this, { comet, open })
    this.#run()
  }

  add(consumer) {
    const { name } = consumer
    const channel = this.channels.get(name) ?? { consumers: new Set() }
    if (!channel.consumers.size && this.channels.size > 127) throw new RangeError("at most 128 channels")
    this.channels.set(name, channel)
    consumer.channel = channel
    channel.consumers.add(consumer)
    this.#changed(name)
  }

  remove(consumer) {
    const { name, channel } = consumer
    if (!channel?.consumers.delete(consumer)) return
    if (!channel.consumers.size) {
      this.channels.delete(name)
      this.comet.tell(this.comet.status, this)
      this.#changed(name)
    }
    this.consumed(consumer)
  }

  starts(names = this.channels.keys()) {
    const starts = { __proto__: null }
    for (const name of names) {
      const channel = this.channels.get(name)
      if (!channel) continue
      channel.from = Infinity
      if (!isDue(channel)) continue
      channel.from = this.#asked
      channel.base = starts[name] = furthest(channel, "at")
    }
    this.comet.log("subscribes", starts)
    return starts
  }

  consumed(consumer) {
    const { name, channel } = consumer
    const { consumers, ahead, from } = channel
    if (name[0] !== "~" || (this.channels.get(name) ?? channel) !== channel) return
    if (ahead) {
      if ([...consumers].some(({ at, done }) => at !== done)) return
      if (consumers.size && from === Infinity) return this.#changed(name)
      if (this.#digests) this.poke()
      queueMicrotask(() => this.#acknowledge())
    }
    const upto = consumers.size ? furthest(channel, "done") : consumer.done
    if (upto.includes(".")) this.owe(this.#acks, { [name]: upto })
  }

  owe(older, newer = this.#acks) {
    this.#acks = { ...older, ...newer }
    this.#due ??= setTimeout(() => this.#acknowledge(), SECOND)
  }

  canary() {
    this.#asked++
    return { ":": "now" }
  }

  hear(events) {
    if (!this.heard) this.comet.log(`connected by ${this.transport}`)
    if (!this.heard && !this.resting) this.#remember(this)
    this.heard = Date.now()
    this.#failures = 0
    this.comet.tell("online", this)
    for (const event of events) {
      if (event.channel === ":") this.#answered++
      const channel = this.channels.get(event.channel)
      if (!channel || channel.from > this.#answered) continue
      event.error ? this.#fail(channel, event) : this.#move(channel, event)
    }
  }

  each(act) {
    for (const { consumers } of this.#channels) [...consumers].forEach(act)
  }

  again() {
    this.#again = true
    this.stop?.()
    this.poke()
  }

  async pause() {
    const seconds = this.comet.idleDelay(this.transport) || this.comet.activity.timeBetweenRequests
    if (seconds) return this.#wait(seconds * SECOND)
    if (this.#channels.every(isDue)) return
    this.#digests = true
    await this.#wait(this.#rest() * SECOND)
    this.#digests = false
  }

  // Seconds between idle polls; 0 if there is a channel to wait for.
  #rest() {
    const idle = this.#channels.some(isDue) ? 0 : this.comet.processTimeout / 2.5
    return this.comet.idleDelay(this.transport) || idle
  }

  get #channels() {
    return [...this.channels.values()]
  }

  // No message is missing between the base and the event.
  #move(channel, { channel: name, position, data, ahead }) {
    const { base, consumers } = channel
    if (position === base) return
    channel.base = position
    channel.epoch = position.split(".")[0]
    if (data !== undefined) {
      channel.ahead = ahead
      this.lastData = Date.now()
    }
    for (const consumer of [...consumers]) {
      const { at } = consumer
      if (!isBehind(at, position)) continue
      isBehind(at, base) ? this.#changed(name) : consumer.deliver(data, position)
    }
  }

  #acknowledge() {
    clearTimeout(this.#due)
    if (this.#acks) this.acknowledge?.(this.#acks)
    this.#acks = this.#due = null
  }

  #fail(channel, { channel: name, error, position, reason = error }) {
    const { base, consumers } = channel
    channel.epoch = position?.split(".")[0]
    const known = REASONS.includes(reason) ? reason : "failed"
    let told = new ChannelClosed(`${name}: ${reason}`, { channel: name, reason: known })
    if (error === "full") told = new ChannelFull(`${name}: messages were missed`, { channel: name, position })
    if (name[0] === "~" && reason === "unknown") told = new ProcessClosed("process closed")
    for (const consumer of [...consumers]) {
      if (!position || consumer.at === base) consumer.fail(told)
    }
    if (consumers.size) this.#changed(name)
  }

  #changed(name) {
    const channel = this.channels.get(name)
    if (channel) channel.from = Infinity
    if (this.change) this.change(name)
    else queueMicrotask(() => this.change ?? this.again())
  }

  async #run() {
    while (!this.comet.closed) {
      if (!this.channels.size || this.comet.asleep) await this.#wait()
      else await this.#attempt()
    }
  }

  async #attempt() {
    this.#again = false
    this.heard = 0
    try {
      this.url = await this.open()
      await this.#follow()
    } catch ({ kind, wait, message }) {
      this.comet.log(`lost: ${kind ?? ""} ${message}`)
      if (kind === "gone") this.comet.renew(this.url)
      const pause = { deactivated: 10, connecting: 1, offline: 20 }[kind] * (0.5 + Math.random()) * SECOND || 0
      this.#silent = this.heard && Date.now() - this.heard >= SILENCE
      this.comet.tell(pause ? kind : this.heard ? "connecting" : "offline", this)
      this.change = () => {}
      await this.#wait(Math.max(backoff(this.#failures++), wait || pause))
      this.change = null
    }
  }

  async #follow() {
    for (const name of this.#choices()) {
      if (this.#again || !this.channels.size) return
      this.transport = name
      this.comet.log(`tries ${this.comet.idleDelay(name) ? "an idle poll" : name}`)
      this.resting = this.#rest()
      this.#asked = this.#answered = 0
      try {
        return await this.#take(this.resting ? poll : TRANSPORTS[name])
      } catch (error) {
        if (this.heard || error.kind || this.resting || name === "poll") throw error
        if (this.#silent) this.comet.tell("offline", this)
      }
    }
  }

  #take(transport) {
    const over = new AbortController()
    let timer
    return new Promise((resolve, reject) => {
      this.stop = resolve
      const wait = (milliseconds, late = reject) => {
        clearTimeout(timer)
        timer = milliseconds && setTimeout(late, milliseconds, failure())
      }
      wait(FIRST_EVENT)
      transport(this, over.signal, wait).then(resolve, reject)
    }).finally(() => {
      clearTimeout(timer)
      this.change = this.acknowledge = null
      over.abort()
    })
  }

  // A WebSocket takes no headers.
  #choices() {
    const found = choices(stored(new URL(this.url).origin))
    return this.comet.headersFor(this.url) ? found.filter((name) => name !== "websocket") : found
  }

  #remember({ url, transport }) {
    const { origin } = new URL(url)
    if (transport === "websocket") stored(origin, "")
    else if (transport !== this.#choices()[0]) {
      const again = stored(origin)?.startsWith(transport)
      stored(origin, `${transport} ${Date.now() + SECOND * (again ? 3600 : 60)}`)
    }
  }

  #wait(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds >= 0 && setTimeout(resolve, Math.min(milliseconds, LONGEST))
      this.poke = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

const FOREIGN = "this reference is of another client process; was it asked for with comet.fetch?"
let reloading

class Comet extends EventTarget {
  status = "connecting"
  asleep = false
  #followers = new Map()
  #home
  #page = readPage()
  #process
  #url = null
  #urls = new Set() // of the page's client processes, present and past
  #headers
  #bare
  #hidden
  #activated = 0
  #wishes = new Set()
  #timer
  #ear = new AbortController()

  constructor({ url, headers, debug = stored("debug"), ...wish } = {}) {
    super()
    if (headers && !headers.call) throw new TypeError(`expected headers to be a function, got ${headers}`)
    this.#headers = headers && (() => this.#ask(headers))
    this.log = debug ? (...told) => console.log("comet:", ...told) : () => {}
    this.prefix = new URL(url ?? ".", url ? location : import.meta.url).href.replace(/\/$/, "")
    this.#urls.add(new URL(this.#page.url ?? "", this.prefix).href)
    this.#home = new Follower(this, () => this.#place())
    this.#followers.set(this.prefix, this.#home)
    const { signal } = this.#ear
    addEventListener("online", () => this.restart(), { signal })
    addEventListener("offline", () => this.restart(), { signal })
    document.addEventListener("visibilitychange", () => this.#turn(), { signal })
    addEventListener("pageshow", ({ persisted }) => persisted && this.#sleep(false), { signal })
    const leave = ({ persisted }) => {
      if (persisted) return this.#sleep(true)
      // First: Firefox may stop the script.
      if (!this.#headers && this.#url && navigator.sendBeacon(`${this.#url}/close`)) this.#process = null
      this.close()
    }
    addEventListener("pagehide", leave, { signal })
    this.configure(wish)
  }

  get closed() {
    return this.status === "closed"
  }

  channel(name, options) {
    const reference = this.#page.channels?.[name]
    return this.open(reference?.url ? reference : { url: this.prefix, channel: name }, options)
  }

  open({ url, channel, position = "now" }, options = {}) {
    const { href } = new URL(url, this.prefix)
    const prefix = `${href}/`.startsWith(`${this.prefix}/`) ? this.prefix : href
    const follower = this.#followers.get(prefix) ?? new Follower(this, () => prefix)
    this.#followers.set(prefix, follower)
    const consumer = new Consumer(follower, channel, options, `${options.from ?? position}`)
    const foreign = href.startsWith(`${this.prefix}/p/`) && !this.#urls.has(href)
    if (this.closed) consumer.close()
    else if (foreign) queueMicrotask(() => consumer.fail(new CometError(FOREIGN, { reason: "other-process" })))
    else follower.add(consumer)
    return consumer
  }

  process() {
    this.#process ??= this.#openProcess().catch((failure) => {
      this.#process = null
      throw failure
    })
    return this.#process
  }

  async fetch(input, init) {
    const asked = new Request(input, init)
    if (this.closed || new URL(asked.url).origin !== new URL(this.prefix).origin) return fetch(asked)
    const { process, url } = await this.process()
    const headers = new Headers(await this.#headers?.())
    headers.forEach((value, name) => asked.headers.has(name) || asked.headers.set(name, value))
    asked.headers.set("Comet-Process", process)
    const answer = await fetch(asked, { credentials: init?.credentials ?? "include" })
    if (answer.status !== 410) return answer
    await post(this, `${url}/ack`, { ":": "new.0" }).catch(({ kind }) => kind === "gone" && this.renew(url))
    return url === this.#url ? answer : this.fetch(input, init).catch(() => answer)
  }

  configure(wish) {
    const own = { ...wish }
    this.#wishes.add(own)
    this.#reckon()
    return { drop: () => this.#wishes.delete(own) && this.#reckon() }
  }

  get isActive() {
    return !this.closed && !this.asleep && !this.idleDelay(this.#home.transport)
  }

  activate() {
    this.#activated = Date.now()
    this.#turn()
  }

  restart() {
    this.#followers.forEach((follower) => follower.again())
  }

  reload() {
    reloading ??= setTimeout(() => location.reload(), Math.random() * RELOAD)
  }

  close() {
    if (this.closed) return
    this.tell("closed")
    this.#ear.abort()
    clearTimeout(this.#timer)
    this.#followers.forEach((follower) => follower.each((consumer) => consumer.close()))
    this.restart()
    const leave = ({ url }) =>
      this.#headers ? post(this, `${url}/close`, {}, { keepalive: true }) : navigator.sendBeacon(`${url}/close`)
    this.#process?.then(leave).catch(() => {})
  }

  tell(status, follower = this.#home) {
    if (follower !== this.#home || this.closed) return
    // Without channels the status is unknown.
    if (!follower.channels.size && status !== "closed") status = "connecting"
    if (status === this.status) return
    this.log(`is ${status}`)
    this.status = status
    this.dispatchEvent(new Event("status"))
  }

  renew(url) {
    if (url !== this.#url) return
    this.#process = this.#url = null
    this.#page.taken = true
  }

  async #ask(headers) {
    try {
      return new Headers(await headers())
    } catch (error) {
      reportError(error)
      throw failure("no headers")
    }
  }

  // The headers are sent only to the page's own server.
  headersFor(url) {
    return new URL(url).origin === new URL(this.prefix).origin ? this.#headers : undefined
  }

  idleDelay(transport) {
    const { alwaysActive, timeBetweenRequestsWhenIdle } = this.activity
    const idleFor = this.#idleFor(transport)
    if (!this.#hidden || alwaysActive || idleFor < 0) return 0
    return idleDelay(timeBetweenRequestsWhenIdle, idleFor, this.processTimeout)
  }

  // Seconds since a hidden page should rest; negative before.
  #idleFor(transport = "websocket") {
    const { activeUntilTimeout, timeout } = this.activity
    const since = Math.max(this.#hidden, this.#activated, activeUntilTimeout && this.#home.lastData)
    const keeps = transport === "websocket" || this.#activated > this.#hidden
    return (Date.now() - since) / SECOND - (keeps && timeout)
  }

  #reckon() {
    this.activity = merge([...this.#wishes])
    this.#turn()
  }

  // With headers, or after 501: site channels.
  async #place() {
    const own = [...this.#home.channels.keys()].some((name) => name[0] === "~")
    if (!own && (this.#headers || this.#bare)) return this.prefix
    try {
      return (await this.process()).url
    } catch (error) {
      if (own || error.message !== "501") throw error
      return (this.#bare = this.prefix)
    }
  }

  async #openProcess() {
    const { process, taken } = this.#page
    const opened = process && !taken ? this.#page : await (await post(this, `${this.prefix}/open`)).json()
    const url = (this.#url = new URL(opened.url, this.prefix).href)
    this.#urls.add(url)
    this.log(`has ${taken ? "another" : "a"} client process`)
    this.processTimeout = opened.processTimeout
    if (taken) {
      this.#page.taken = false
      this.#home.each((consumer) => consumer.name[0] === "~" && consumer.fail(new ProcessClosed("process closed")))
      this.dispatchEvent(new Event("process-closed"))
    }
    return { ...opened, url }
  }

  #turn() {
    clearTimeout(this.#timer)
    this.#hidden = document.hidden && (this.#hidden || Date.now())
    this.#followers.forEach((follower) => {
      if (!this.idleDelay(follower.transport)) follower.poke()
      else if (!follower.resting) follower.again()
    })
    const left = -this.#idleFor()
    const wait = Math.min((left > 0 ? left : this.activity.timeout || 1) * SECOND, LONGEST)
    if (this.#hidden) this.#timer = setTimeout(() => this.#turn(), wait)
  }

  #sleep(asleep) {
    this.asleep = asleep
    this.restart()
  }
}

function readPage() {
  const page = JSON.parse(document.querySelector("script#comet")?.text || "{}")
  try {
    page.taken = page.process && sessionStorage[page.url]
    sessionStorage[page.url] = "taken"
  } catch {}
  return page
}

export const connect = (options) => new Comet(options)
