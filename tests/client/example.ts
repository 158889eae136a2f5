// What a page written in TypeScript does with the client; only its types are checked.
import {
  ChannelClosed,
  ChannelFull,
  type Closed,
  type Comet,
  CometError,
  connect,
  type Consumer,
  ProcessClosed,
  type Reference,
  type Status,
} from "../../asgi_comet/static/comet.js"

interface Quote {
  price: number
}

const comet: Comet = connect({ url: "/comet", timeout: 60, timeBetweenRequestsWhenIdle: [0.5, 60, 600] })

export async function show(): Promise<number> {
  let total = 0
  try {
    for await (const quote of comet.channel<Quote>("ticker")) {
      total += quote.price
      // @ts-expect-error: a quote has no such thing
      total += quote.prize
    }
  } catch (error) {
    if (error instanceof ChannelFull) console.log(error.channel, error.position?.length)
    else if (error instanceof ChannelClosed && error.reason === "ended") console.log(error.channel)
    else if (error instanceof ProcessClosed || error instanceof CometError) console.log(error.message)
  }
  return total
}

const consumer: Consumer<string> = comet.channel<string>("news", {
  from: "last:10",
  onmessage: (data, position) => console.log(data.toUpperCase(), position.length),
  onfull: "resume",
  onclosed: ({ reason }) => console.log(reason),
  onerror: (error) => console.log(error.message),
})
console.log(consumer.position?.length)
const closed: Closed | null = consumer.closed
if (closed === "ended" || closed === "full" || closed === "closed") console.log(closed)
// @ts-expect-error: no such reason
if (closed === "finished") console.log(closed)
// @ts-expect-error: it is told, not set
consumer.closed = "closed"
consumer.close()

comet.channel<number>("gauge", { onfull: (error) => console.log(error.position) })
// @ts-expect-error: there is only one word
comet.channel<number>("gauge", { onfull: "restart" })
// @ts-expect-error: seconds are a number
connect({ timeout: "60" })

export async function open(): Promise<void> {
  const answer = await comet.fetch("/thread", { method: "POST", body: "{}" })
  const reference: Reference = await answer.json()
  for await (const message of comet.open<{ text: string }>(reference)) console.log(message.text)
  const { url, processTimeout } = await comet.process()
  console.log(url.length, processTimeout / 2)
}

comet.addEventListener("status", () => {
  const status: Status = comet.status
  // @ts-expect-error: no such status
  if (status === "asleep") comet.close()
})
// @ts-expect-error: no such event
comet.addEventListener("message", () => {})
// @ts-expect-error: it is told, not set
comet.status = "online"
const wish = comet.configure({ alwaysActive: true })
wish.drop()
comet.activate()
comet.restart()
const active: boolean = comet.isActive
// @ts-expect-error: it is told, not set
comet.isActive = !active

const heard: string[] = []
comet.channel<string>("log", { from: "first", onmessage: (line) => heard.push(line) })
comet.channel<string>("log", { onmessage: async (line) => console.log(line) })

connect({ headers: () => ({ Authorization: "Bearer x" }), debug: true })
connect({ headers: async () => new Headers() })
// @ts-expect-error: a function, for a token expires
connect({ headers: { Authorization: "Bearer x" } })
comet.reload()
