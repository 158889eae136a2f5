// Described in comet.d.ts, and inside in docs/browser.md.

const SECOND = 1000
const FIRST_EVENT = 4 * SECOND
const SILENCE = 35 * SECOND
const LONGEST = 2e9 // for a timer

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
    if (key.includes("Between")) most[key] = least(most[key], wish)
    else if (wish > most[key]) most[key] = wish
  }
  return most
}

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

function call(callback, ...told) {
  try {
    callback(...told)
  } catch (error) {
    reportError(error)
  }
}

class Consumer {
  #queue = []
  #waiting = []
  #over = false

  constructor(follower, name, options, at) {
    if (typeof name !== "string" || !/^\P{Cs}+$/su.test(name) || new Blob([name]).size > 255) {
      throw new TypeError(`expected a name of 1 to 255 bytes, got ${name}`)
    }
    if (!/^(now|(last:|[\w-]{1,32}\.)(0|[1-9]\d{0,15}))$/.test(at)) {
      throw new TypeError(`expected now, last:10 or a position, got ${at}`)
    }
    Object.assign(this, { follower, name, options, at })
  }

  get position() {
    return this.at.includes(".") ? this.at : null
  }

  deliver(value, position) {
    if (this.#over) return
    this.at = position
    const { onmessage } = this.options
    if (value === undefined) return
    onmessage ? call(onmessage, value, position) : this.#say({ value, done: false })
  }

  fail(error) {
    if (this.#over) return
    const { onmessage, onfull, onclosed, onerror } = this.options
    if (error.position && onfull === "resume") return (this.at = error.position)
    const own = { ChannelFull: onfull, ChannelClosed: onclosed }[error.name]
    if (!onmessage) this.#say(error)
    this.close()
    if (onmessage) call(own?.call ? own : onerror || reportError, error)
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

async function request(url, init) {
  const answer = await fetch(url, { credentials: "include", cache: "no-store", ...init })
  if (answer.ok) return answer
  if (answer.status === 400) console.error("comet:", await answer.text())
  throw failure(answer.status, answer.headers.get("Retry-After") * SECOND)
}

const post = (url, body, signal = AbortSignal.timeout(FIRST_EVENT)) =>
  request(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  })

const websocket = (follower, signal, wait) =>
  new Promise((_, reject) => {
    const socket = new WebSocket(follower.url.replace(/^http/, "ws") + "/socket", "comet.v1")
    const send = (frame) => socket.send(JSON.stringify(frame))
    signal.addEventListener("abort", () => {
      socket.onmessage = null
      socket.onopen = () => socket.close()
      socket.close()
    })
    follower.change = (...names) => {
      if (socket.readyState !== 1) return
      // What comes after the canary is of the new subscription.
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
  const query = starts.map(([name, start]) => `channel=${encodeURIComponent(name)}&position=${start}`)
  const { body } = await request(`${follower.url}/events?${query.join("&")}`, { signal })
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  const parse = eventParser()
  let code
  follower.acknowledge = (ack) => post(`${follower.url}/ack`, ack).catch(() => {})
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

function fromSSE({ event, data, id = "" }, starts) {
  const of = (name) => id.split(",")[starts.map(([channel]) => channel).indexOf(name)]
  const found = JSON.parse(data)
  if (event[0] !== ":") return { channel: event, position: of(event), data: found }
  const { channel, reason, positions } = found
  if (positions) return Object.entries(positions).map(([channel, position]) => ({ channel, position }))
  if (!channel) throw failure(event === ":deactivated" ? 1013 : 4001)
  const position = of(channel) === "-" ? undefined : of(channel)
  return { channel, error: event.slice(1), reason, position }
}

async function poll(follower, signal, wait) {
  // The first is answered at once.
  for (let hold = false; !signal.aborted; hold = true) {
    if (hold) wait(SILENCE, () => follower.again())
    const body = { channels: follower.starts(), idle: !hold }
    const answer = await post(`${follower.url}/poll`, body, signal)
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
  channels = new Map()
  #asked = 0
  #answered = 0
  #acks
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
    channel.consumers.add(consumer)
    this.#changed(name)
  }

  remove(consumer) {
    const channel = this.channels.get(consumer.name)
    if (!channel?.consumers.delete(consumer) || channel.consumers.size) return
    this.channels.delete(consumer.name)
    this.#changed(consumer.name)
  }

  // Who has no place goes first, then another epoch, then who is furthest behind.
  starts(names = this.channels.keys()) {
    const starts = { __proto__: null }
    for (const name of names) {
      const channel = this.channels.get(name)
      if (!channel) continue
      const turn = ({ at }) => {
        const [epoch, offset] = at.split(".")
        return !offset ? -2 : epoch === (channel.epoch ?? epoch) ? offset : -1
      }
      const [first] = [...channel.consumers].sort((one, other) => turn(one) - turn(other))
      channel.base = starts[name] = first.at
      channel.from = this.#asked
    }
    return starts
  }

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
      event.error ? this.#fail(channel, event) : this.#move(channel, event)
    }
  }

  each(act) {
    for (const { consumers } of [...this.channels.values()]) [...consumers].forEach(act)
  }

  again() {
    this.#again = true
    this.stop?.()
    this.poke()
  }

  pause() {
    const seconds = this.comet.idleDelay(this.transport) || this.comet.activity.timeBetweenRequests
    return seconds && this.#wait(seconds * SECOND)
  }

  // What comes is all that there is after the base.
  #move(channel, { channel: name, position, data }) {
    const { base, consumers } = channel
    if (position === base) return
    channel.base = position
    channel.epoch = position.split(".")[0]
    for (const consumer of [...consumers]) {
      const { at } = consumer
      if (!isBehind(at, position)) continue
      isBehind(at, base) ? this.#changed(name) : consumer.deliver(data, position)
    }
    if (data === undefined) return
    this.lastData = Date.now()
    if (name[0] !== "~") return
    if (!this.#acks) {
      this.#acks = {}
      setTimeout(() => {
        this.acknowledge?.(this.#acks)
        this.#acks = null
      }, SECOND)
    }
    this.#acks[name] = position
  }

  #fail(channel, { channel: name, error, position, reason = error }) {
    const { base, consumers } = channel
    channel.epoch = position?.split(".")[0]
    let told = new ChannelClosed(`${name}: ${reason}`, { channel: name, reason })
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
    } catch ({ kind, wait }) {
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
    for (const name of choices(stored(this.url))) {
      if (this.#again || !this.channels.size) return
      this.transport = name
      this.resting = this.comet.idleDelay(name)
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

  #remember({ url, transport }) {
    const text = stored(url)
    if (transport === "websocket") stored(url, "")
    else if (transport !== choices(text)[0]) {
      stored(url, `${transport} ${Date.now() + SECOND * (text?.startsWith(transport) ? 3600 : 60)}`)
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

class Comet extends EventTarget {
  status = "connecting"
  asleep = false
  #followers = new Map()
  #home
  #page = readPage()
  #process
  #url = null
  #hidden
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
    addEventListener("pagehide", ({ persisted }) => (persisted ? this.#sleep(true) : this.close()), { signal })
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
    this.closed ? consumer.close() : follower.add(consumer)
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
    asked.headers.set("Comet-Process", process)
    const answer = await fetch(asked)
    if (answer.status !== 410) return answer
    await post(`${url}/ack`, { ":": "new.0" }).catch(({ kind }) => kind === "gone" && this.renew(url))
    return url === this.#url ? answer : this.fetch(input, init).catch(() => answer)
  }

  configure(wish) {
    this.activity = this.activity ? mostReactive(this.activity, wish) : { ...ACTIVITY, ...wish }
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

  renew(url) {
    if (url !== this.#url) return
    this.#process = this.#url = null
    this.#page.taken = true
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

  async #openProcess() {
    const { process, taken } = this.#page
    const opened = process && !taken ? this.#page : await (await post(`${this.prefix}/open`)).json()
    const url = (this.#url = new URL(opened.url, this.prefix).href)
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
    const wait = Math.min((this.activity.timeout || 1) * SECOND, LONGEST)
    if (this.#hidden) this.#timer = setTimeout(() => this.#turn(), wait)
  }

  #sleep(asleep) {
    this.asleep = asleep
    this.#again()
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
