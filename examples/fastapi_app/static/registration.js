/* The registration protocol, as a page of 2010 speaks it: one XMLHttpRequest that the server holds
 * until a channel is written, and the next one as soon as it is answered.
 *
 * Owns the request, its retries and the state of the connection.
 * Knows nothing of what the messages mean or how the page looks.
 *
 * States: connecting    no answer yet
 *         online        the last answer was 200
 *         deactivated   503: the operator switched push off; we come back after Retry-After
 *         offline       no answer, or one we do not understand; we come back after a random pause
 */
var Registration = (function () {
  "use strict";

  var CONTENT_TYPE = "application/x-ocsigen-comet";
  var ENDED = "ENDED_CHANNEL";
  var SILENCE = 45000; // ms; figures come each second, so a longer silence is a dead line
  var LONGEST_RETRY_AFTER = 3000; // ms; a page with a million readers would take the server's word
  var LONGEST_PAUSE = 10000; // ms

  /* `on` has the callbacks state(state, detail), message(channel, text), ended(channel),
   * batch() after the messages of one answer, asked(exchange) and answered(exchange). */
  function Registration(url, channels, on) {
    this.url = url;
    this.channels = channels.slice();
    this.on = on;
    this.state = null;
    this.failures = 0;
    this.timer = null;
    this.request = null;
  }

  Registration.prototype.start = function () {
    this.enter("connecting");
    this.listen();
  };

  Registration.prototype.stop = function () {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.request) {
      this.request.onload = this.request.onerror = this.request.ontimeout = null;
      this.request.abort();
      this.request = null;
    }
  };

  /* Try now instead of when the pause is over. Does nothing while a request is held. */
  Registration.prototype.wake = function () {
    if (this.timer !== null) {
      this.listen();
    }
  };

  Registration.prototype.listen = function () {
    var self = this;
    var request = new XMLHttpRequest();
    var exchange = {
      method: "POST",
      url: this.url,
      headers: "Content-Type: " + CONTENT_TYPE,
      body: encode(this.channels),
      started: new Date()
    };
    clearTimeout(this.timer);
    this.timer = null;
    this.request = request;
    request.open("POST", this.url);
    request.timeout = SILENCE;
    request.setRequestHeader("Content-Type", CONTENT_TYPE);
    request.onload = function () {
      self.answered(exchange, request);
    };
    request.onerror = request.ontimeout = function () {
      self.answered(exchange, request);
    };
    request.send(exchange.body);
    this.on.asked(exchange);
  };

  Registration.prototype.answered = function (exchange, request) {
    this.request = null;
    exchange.status = request.status;
    exchange.reason = request.statusText;
    exchange.answer = request.status ? request.responseText : "";
    var pairs = request.status === 200 ? decode(exchange.answer) : null;
    if (pairs) {
      this.deliver(pairs);
    } else if (request.status === 503) {
      this.failures = 0;
      exchange.retryAfter = request.getResponseHeader("Retry-After");
      this.pause("deactivated", afterRetry(exchange.retryAfter), exchange);
    } else {
      this.failures += 1;
      this.pause("offline", backoff(this.failures), exchange);
    }
    this.on.answered(exchange);
  };

  /* What is written between two requests is not for us, so the next one leaves before the page
   * has looked at what the last one brought. */
  Registration.prototype.deliver = function (pairs) {
    var ended = pairs.filter(function (pair) {
      return pair.ended;
    });
    this.failures = 0;
    this.channels = this.channels.filter(function (channel) {
      return !ended.some(function (pair) {
        return pair.channel === channel;
      });
    });
    if (this.channels.length) {
      this.listen();
      this.enter("online");
    } else {
      this.enter("offline", { ended: true });
    }
    this.hand(pairs);
  };

  Registration.prototype.hand = function (pairs) {
    var on = this.on;
    pairs.forEach(function (pair) {
      if (pair.ended) {
        on.ended(pair.channel);
      } else {
        on.message(pair.channel, pair.text);
      }
    });
    on.batch();
  };

  Registration.prototype.pause = function (state, milliseconds, exchange) {
    var self = this;
    this.timer = setTimeout(function () {
      self.listen();
    }, milliseconds);
    this.enter(state, {
      pause: milliseconds,
      status: exchange.status,
      retryAfter: exchange.retryAfter
    });
  };

  Registration.prototype.enter = function (state, detail) {
    this.state = state;
    this.on.state(state, detail || {});
  };

  function encode(channels) {
    return "registration=" + escape(channels.join("\n"));
  }

  /* The pairs of an answer, or null if it is none of the protocol's (a proxy's page, say). */
  function decode(body) {
    try {
      return body.split("\n").filter(Boolean).map(pair);
    } catch (error) {
      if (error instanceof URIError) {
        return null;
      }
      throw error;
    }
  }

  /* A message that really reads ENDED_CHANNEL comes as %45NDED_CHANNEL, so the mark is looked for
   * before anything is decoded. */
  function pair(line) {
    var colon = line.indexOf(":");
    var message = line.slice(colon + 1);
    if (colon < 1) {
      throw new URIError("no pair: " + line);
    }
    return {
      channel: decodeURIComponent(line.slice(0, colon)),
      ended: message === ENDED,
      text: message === ENDED ? "" : decodeURIComponent(message)
    };
  }

  function afterRetry(header) {
    var asked = parseFloat(header) * 1000;
    return around(Math.min(asked > 0 ? asked : LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER));
  }

  function backoff(failures) {
    return around(Math.min(500 * Math.pow(2, failures), LONGEST_PAUSE));
  }

  /* A quarter more or less, so that a thousand pages do not come back in the same instant. */
  function around(milliseconds) {
    return milliseconds * (0.75 + Math.random() / 2);
  }

  Registration.decode = decode;
  Registration.encode = encode;
  return Registration;
}());
