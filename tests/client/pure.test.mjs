// What the client works out without a network: node --test tests/client/pure.test.mjs
import assert from "node:assert/strict"
import { test } from "node:test"

// A module of its own kind only in a browser: here there is no package.json that says so.
import { readFile } from "node:fs/promises"

const source = await readFile(new URL("../../asgi_comet/static/comet.js", import.meta.url))
const comet = await import(`data:text/javascript;base64,${source.toString("base64")}`)
const { ACTIVITY, backoff, choices, eventParser, idleDelay, isBehind, merge, mostReactive } = comet

test("the pause doubles from half a second up to twenty, with full jitter", () => {
  const longest = [0, 1, 2, 3, 4, 5, 6, 7, 60, 2000].map((attempt) => backoff(attempt, () => 1))
  assert.deepEqual(longest, [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000, 20000, 20000])
  assert.equal(backoff(9, () => 0), 0)
  assert.equal(backoff(3, () => 0.25), 1000)
  for (let n = 0; n < 100; n++) assert.ok(backoff(2) >= 0 && backoff(2) < 2000)
})

test("an idle page polls ever less often, and below half the process timeout", () => {
  const figures = [0.5, 60, 600]
  assert.equal(idleDelay(figures, 0), 60)
  assert.equal(idleDelay(figures, 100), 110)
  assert.equal(idleDelay(figures, 1e6), 600)
  for (const timeout of [1, 30, 600, 86400]) {
    for (const idle of [0, 10, 1000, 1e6]) assert.ok(idleDelay(figures, idle, timeout) < timeout / 2)
  }
  assert.equal(idleDelay(figures, 0, 600), 60)
})

test("of two wishes the most reactive holds, in either order", () => {
  const one = { ...ACTIVITY, timeout: 20, timeBetweenRequests: 5, timeBetweenRequestsWhenIdle: [1, 10, 900] }
  const other = { ...ACTIVITY, alwaysActive: true, timeBetweenRequests: 3 }
  const most = {
    alwaysActive: true,
    activeUntilTimeout: false,
    timeout: 180,
    timeBetweenRequests: 3,
    timeBetweenRequestsWhenIdle: [0.5, 10, 600],
  }
  assert.deepEqual(mostReactive(one, other), most)
  assert.deepEqual(mostReactive(other, one), most)
  assert.deepEqual(mostReactive(one, one), one)
  assert.equal(mostReactive({ ...ACTIVITY, activeUntilTimeout: true }, ACTIVITY).activeUntilTimeout, true)
})

test("a wish changes nothing that it does not name", () => {
  const first = { ...ACTIVITY, timeout: 30, timeBetweenRequests: 5 }
  assert.deepEqual(mostReactive(first, {}), first)
  assert.deepEqual(mostReactive(first, { alwaysActive: true }), { ...first, alwaysActive: true })
  assert.deepEqual(mostReactive(first, { timeout: 20, timeBetweenRequests: 6 }), first)
  assert.deepEqual(mostReactive(first, { timeBetweenRequestsWhenIdle: [1, 5, 700] }), {
    ...first,
    timeBetweenRequestsWhenIdle: [0.5, 5, 600],
  })
  assert.deepEqual(first, { ...ACTIVITY, timeout: 30, timeBetweenRequests: 5 })
})

test("a default holds only where no wish names the option", () => {
  const less = {
    alwaysActive: false,
    timeout: 30,
    timeBetweenRequests: 5,
    timeBetweenRequestsWhenIdle: [1, 120, 900],
  }
  assert.deepEqual(merge([]), ACTIVITY)
  assert.deepEqual(merge([{}, { timeout: undefined }]), ACTIVITY)
  assert.deepEqual(merge([less]), { ...ACTIVITY, ...less })
  assert.deepEqual(merge([{ timeout: 0 }, less]), { ...ACTIVITY, ...less })
  assert.deepEqual(merge([less, { alwaysActive: true, timeBetweenRequests: 2 }]), {
    ...ACTIVITY,
    ...less,
    alwaysActive: true,
    timeBetweenRequests: 2,
  })
  assert.deepEqual(merge([less, { timeBetweenRequestsWhenIdle: [0.5, 200, 900] }]).timeBetweenRequestsWhenIdle, [
    0.5, 120, 900,
  ])
})

test("behind is who has less of the same epoch, by number, or is of another, or has no place", () => {
  assert.equal(isBehind("e.9", "e.10"), true)
  assert.equal(isBehind("e.10", "e.9"), false)
  assert.equal(isBehind("e.9", "e.9"), false)
  assert.equal(isBehind("e.1", "f.2"), true)
  assert.equal(isBehind("f.2", "e.1"), true)
  assert.equal(isBehind("new.0", "e.2"), true)
  assert.equal(isBehind("now", "e.2"), true)
  assert.equal(isBehind("e.2", "now"), true)
  assert.equal(isBehind("last:5", "last:5"), false)
})

test("a stream is the same however it is cut", () => {
  const stream =
    ': comment\n\nretry: 50\nevent: :open\ndata: {"positions": {"a: b": "e.1"}}\nid: e.1\n\n' +
    'event: a: b\ndata: "x: ü"\nid: e.2\n\n: comment\n\nevent: a: b\ndata: 2\nid: e.3\n\n'
  const expected = [
    { retry: "50", event: ":open", data: '{"positions": {"a: b": "e.1"}}', id: "e.1" },
    { event: "a: b", data: '"x: ü"', id: "e.2" },
    { event: "a: b", data: "2", id: "e.3" },
  ]
  const plain = (events) => events.map(({ retry, event, data, id }) => ({ ...(retry && { retry }), event, data, id }))
  for (let size = 1; size <= stream.length; size++) {
    const parse = eventParser()
    const found = []
    for (let at = 0; at < stream.length; at += size) found.push(...parse(stream.slice(at, at + size)))
    assert.deepEqual(plain(found), expected, `in pieces of ${size}`)
  }
})

test("an event is nothing until it is whole", () => {
  const parse = eventParser()
  assert.deepEqual(parse("event: a\ndata: 1\nid: e.1\n"), [])
  assert.equal(parse("\n")[0].data, "1")
  assert.deepEqual(parse(""), [])
})

test("names and data of any kind stay what they are", () => {
  const [event] = eventParser()('event: __proto__\ndata: {"__proto__": {"x": 1}}\nid: e.1\n\n')
  assert.equal(event.event, "__proto__")
  assert.equal(event.data, '{"__proto__": {"x": 1}}')
  assert.equal({}.x, undefined)
})

test("a choice is kept for its time, and never leads up again within it", () => {
  const every = ["websocket", "sse", "poll"]
  assert.deepEqual(choices(undefined, 5), every)
  assert.deepEqual(choices("", 5), every)
  assert.deepEqual(choices("sse 6", 5), ["sse", "poll"])
  assert.deepEqual(choices("poll 6", 5), ["poll"])
  assert.deepEqual(choices("poll 5", 5), every)
  assert.deepEqual(choices("poll", 5), every)
  assert.deepEqual(choices("carrier-pigeon 6", 5), every)
})
