/**
 * The browser client of asgi_comet: follows channels through all failures of the network, and reports
 * them to the page.
 *
 *     import { connect } from "/comet/comet.js"
 *     const comet = connect()
 *     for await (const quote of comet.channel<Quote>("ticker")) show(quote)
 *
 * Per channel a consumer gets every message in order, each once, or an error that says why not.
 */

/** Where a server tells a page to subscribe: `channel.reference()` there. */
export interface Reference {
  url: string
  channel: string
  position: string
}

/** What goes wrong ends a consumer, once: an iterator throws it, a callback is given it. */
export class CometError extends Error {}

/** Messages were missed. Nothing ever comes if there is no `position` to go on from. */
export class ChannelFull extends CometError {
  readonly channel: string
  readonly position?: string
}

/** The channel is over for this page. A reason that the client does not know is `failed`. */
export class ChannelClosed extends CometError {
  readonly channel: string
  readonly reason: "ended" | "failed" | "unknown" | "forbidden"
}

/** The client process is gone, or was another page's, and its own channels (`~name`) with it. */
export class ProcessClosed extends CometError {}

export interface ChannelOptions<T> {
  /**
   * Where to begin: `now` (the default; where the page was given the channel, its position), `first`,
   * `last:10`, or a position.
   */
  from?: "now" | "first" | (string & {})
  /**
   * Called with each message in place of the iterator. What any of these functions throws is reported.
   * A message is consumed when the function has returned, or the promise that it returned is settled.
   */
  onmessage?: (data: T, position: string) => unknown
  /** Called when messages were missed; `"resume"` goes on from where the server says. */
  onfull?: "resume" | ((error: ChannelFull) => void)
  /** Called when the channel is over, also when it has simply ended. */
  onclosed?: (error: ChannelClosed) => void
  /**
   * Called with any error that has no function of its own. Without it a loop throws the error, and a
   * reader with `onmessage` reports it as uncaught; that a channel has ended is no error there.
   */
  onerror?: (error: CometError) => void
}

/**
 * Why a reader is over: the reason of a `ChannelClosed`; `full` after a `ChannelFull`; `process-closed`
 * after a `ProcessClosed`; `other-process` for a reference of another client process than the page's;
 * `closed` when the page closed the reader, left its loop or called `comet.close()`.
 */
export type Closed = ChannelClosed["reason"] | "full" | "process-closed" | "other-process" | "closed"

/**
 * One reader of a channel. A `for await` loop is over when the channel has ended, and throws any other
 * error that has no function in the options. Leaving the loop closes the reader. If several calls of `next()` wait, an
 * error is for the first, and the others get `{done: true}`. A message is consumed when `next()` is
 * called again, which a `for await` loop does after its body has run.
 */
export interface Consumer<T> extends AsyncIterableIterator<T> {
  /** The position of the last message that the page was given; `null` until the server has said. */
  readonly position: string | null
  /** Why the reader is over, as soon as the client knows; `null` while it is open. */
  readonly closed: Closed | null
  /** Reads no more. */
  close(): void
}

/**
 * How reactive a page is; times in seconds. Of several wishes for one option the most reactive holds;
 * a default holds where no wish names the option. A hidden page that has no WebSocket but another
 * connection gives that back at once, unless `alwaysActive`.
 */
export interface Activity {
  /** Stays connected when hidden. Default: false. */
  alwaysActive?: boolean
  /** Keeps its WebSocket when hidden as long as messages come. Default: false. */
  activeUntilTimeout?: boolean
  /** How long a hidden page keeps its WebSocket. Default: 180. */
  timeout?: number
  /** Pause between two polls. Default: 0. */
  timeBetweenRequests?: number
  /** `[a, b, c]`: a page idle for `t` polls after `min(a·t + b, c)`. Default: `[0.5, 60, 600]`. */
  timeBetweenRequestsWhenIdle?: [number, number, number]
}

export interface ConnectOptions extends Activity {
  /** Where comet is mounted. Default: where this module came from. */
  url?: string
  /**
   * Called for each request to the server of comet, for a page of another origin with a bearer token:
   * `() => ({ Authorization })`, may be async. What it throws is reported, and the client tries again
   * later. The client then uses no WebSocket, which takes no headers, and opens a client process only
   * for `fetch` and for channels of the page (`~name`), which need the session's cookie.
   */
  headers?: () => HeadersInit | Promise<HeadersInit>
  /** Logs in the console what the client does. Default: whether `localStorage["comet debug"]` is set. */
  debug?: boolean
}

/** What `configure` returns. */
export interface Wish {
  /** Takes the wish back. */
  drop(): void
}

export type Status = "connecting" | "online" | "offline" | "deactivated" | "closed"

/** Everything a page follows, over one connection, and its client process. */
export interface Comet extends EventTarget {
  /** Changes with the event `status`; `connecting` while the page follows no channel. */
  readonly status: Status
  /** Whether messages come at once: `false` while a hidden page rests, and after `close()`. */
  readonly isActive: boolean
  /**
   * Follows a channel of the site, of this page (`~name`), or that the page was given. At most 128 of
   * one server. After `close()` it is over at once.
   *
   * @throws TypeError: a name that is no text of 1 to 255 bytes, or a `from` that is none of its kinds.
   * @throws RangeError: there are 128 already.
   */
  channel<T = any>(name: string, options?: ChannelOptions<T>): Consumer<T>
  /** Follows what a reference leads to, also on another server. Throws as `channel` does. */
  open<T = any>(reference: Reference, options?: ChannelOptions<T>): Consumer<T>
  /**
   * `fetch`, telling the application which client process asks. If that is gone (410), another one is
   * opened, and the request is repeated once, unless its body can be read only once.
   *
   * Rejects as `fetch` does; with a `CometError` if the server opens no client process, with a
   * `TimeoutError` if it does not answer within 4 seconds.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>
  /** The client process, opened when first needed. Rejects as `fetch` does. */
  process(): Promise<{ process: string; url: string; processTimeout: number }>
  /** Adds a wish, as the options of `connect` are one; it holds until it is dropped. */
  configure(activity: Activity): Wish
  /** Lets a hidden page that rests connect again, for `timeout` seconds over any transport. */
  activate(): void
  /** Connects anew at once, in place of waiting until the client would have tried again. */
  restart(): void
  /**
   * Loads the page anew after 0 to 30 seconds, at random, so that not all pages do it at once. Further
   * calls change nothing.
   */
  reload(): void
  /** Ends everything, the client process included. */
  close(): void
  /**
   * `status`: `comet.status` has changed. `process-closed`: another client process was opened in
   * place of one that is gone, or that another page has; channels of the site go on.
   */
  addEventListener(
    type: "status" | "process-closed",
    listener: (event: Event) => void,
    options?: boolean | AddEventListenerOptions,
  ): void
}

/**
 * Makes the page's `Comet`: once per page, for a second one has another client process. Its connection
 * is made with the first channel; until then it is `connecting`.
 */
export function connect(options?: ConnectOptions): Comet
