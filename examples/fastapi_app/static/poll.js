/* Follows channels over the JSON poll, through disconnections, and loses nothing silently.
 *
 * One request at a time says which channels we follow, and after which position each; the server
 * holds it until there is something after one of them. What came moves the position, so an answer
 * that is lost on the way is simply asked for again.
 *
 * `on` has the callbacks
 *   message(channel, data)   the next message: in order, each once
 *   missed(channel)          some messages are held no longer; it is followed from here on
 *   over(channel, why)       it is followed no more: "ended", "failed", "unknown", "full" or
 *                            "forbidden"
 *   lost()                   the client process is gone: open another one and follow anew
 *   state(name)              "live", "deactivated" or "offline"; it comes back by itself
 * and, for those who like to watch, asked(exchange) and answered(exchange).
 */
const SILENCE = 60_000; // ms; longer than the server holds a request: the line is dead
const SHORTEST = 1_000; // ms of the first pause; it doubles
const LONGEST = 10_000; // ms of any pause that the server did not ask for

export class Poll {
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.positions = new Map(); // what we have, by channel
    this.failures = 0; // since the last good answer
    this.held = null; // calls off the request that is held
    this.calledOff = false; // since the last answer, a request that may yet reach the server
    this.wake = () => {}; // ends the pause
    this.running = false;
  }

  /* Follow channels, `{channel: position}`; a position may also be "now" or "last:N". */
  follow(positions) {
    Object.entries(positions).forEach(([channel, at]) => this.positions.set(channel, at));
    this.held?.abort(); // it does not ask for these; nothing is lost by asking again
    this.wake();
    this.run();
  }

  stop() {
    this.positions.clear();
    this.held?.abort();
    this.wake();
  }

  async run() {
    if (!this.running) {
      this.running = true;
      while (this.positions.size) {
        await this.take(await this.ask());
      }
      this.running = false;
    }
  }

  /* One request; null if it was called off, and with status 0 if there was no answer of ours. */
  async ask() {
    const held = (this.held = new AbortController());
    const exchange = {
      method: "POST",
      url: this.url + "/poll",
      headers: "Content-Type: application/json",
      body: JSON.stringify({ channels: Object.fromEntries(this.positions) }),
      started: new Date(),
      status: 0
    };
    this.on.asked?.(exchange);
    try {
      const response = await fetch(exchange.url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: exchange.body,
        signal: AbortSignal.any([held.signal, AbortSignal.timeout(SILENCE)])
      });
      exchange.answer = await response.text();
      exchange.found = response.ok && JSON.parse(exchange.answer);
      exchange.retryAfter = response.headers.get("Retry-After");
      exchange.reason = response.statusText;
      exchange.status = response.status;
    } catch {
      // Unreachable, cut off, silent, or a proxy's own page.
    }
    this.on.answered?.(exchange);
    this.calledOff ||= held.signal.aborted;
    return held.signal.aborted ? null : exchange;
  }

  async take(exchange) {
    if (exchange?.status === 200) {
      const { events, replaced } = exchange.found;
      this.failures = 0;
      this.on.state("live");
      events.forEach((event) => this.handle(event));
      if (replaced && !this.calledOff) {
        this.lose(); // another page reads in our place: a copy of this tab
      }
      this.calledOff = false;
    } else if (exchange?.status === 403 || exchange?.status === 410) {
      await this.pause(this.failures); // none the first time
      this.lose();
    } else if (exchange) {
      this.on.state(exchange.status === 503 ? "deactivated" : "offline");
      await this.pause(this.failures + 1, exchange.retryAfter);
    }
  }

  handle({ channel, position, data, error, reason }) {
    if (position) {
      this.positions.set(channel, position);
    } else {
      this.positions.delete(channel);
    }
    try {
      if (data !== undefined) {
        this.on.message(channel, data);
      } else if (error && position) {
        this.on.missed(channel);
      } else if (error) {
        this.on.over(channel, reason ?? error);
      }
    } catch (failure) {
      reportError(failure); // of the page: we go on
    }
  }

  lose() {
    this.positions.clear();
    this.on.lost();
  }

  /* Wait for as long as the server asked for, or longer and longer; and a little more, at random,
   * so that a thousand tabs do not come back in the same instant. */
  async pause(times, asked) {
    const time = times && Math.min(SHORTEST * 2 ** (times - 1), LONGEST);
    this.failures += 1;
    await new Promise((done) => {
      this.wake = done;
      setTimeout(done, Math.max(time, 1000 * asked || 0) * (1 + Math.random() / 2));
    });
  }
}
