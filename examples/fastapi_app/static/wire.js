/* What is on the wire: the last requests and answers as they are, newest on top.
 *
 * Shows exchanges that others make, `{method, url, headers, body, started}` when asked, and
 * `status`, `reason`, `answer`, `retryAfter` when answered. Credentials never reach it.
 */
var Wire = (function () {
  "use strict";

  var KEPT = 8;
  var TICK = 250; // ms between two looks at the clock of a held request

  function Wire(list, pause, decoded) {
    var self = this;
    this.list = list;
    this.pause = pause;
    this.decoded = decoded;
    decoded.addEventListener("change", function () {
      list.classList.toggle("decoded", decoded.checked);
    });
    setInterval(function () {
      self.tick();
    }, TICK);
  }

  Wire.prototype.asked = function (exchange) {
    if (this.pause.checked) {
      return;
    }
    var row = document.createElement("li");
    var asked = block(row, "asked");
    span(asked, "first", exchange.method + " " + path(exchange.url) + " HTTP/1.1");
    if (exchange.headers) {
      span(asked, "header", exchange.headers);
    }
    if (exchange.body) {
      percents(span(asked, "body", ""), exchange.body);
    }
    exchange.row = row;
    exchange.reply = block(row, "reply held");
    exchange.clock = span(exchange.reply, "first", "held");
    this.list.insertBefore(row, this.list.firstChild);
    this.held = exchange;
    while (this.list.children.length > KEPT) {
      this.list.removeChild(this.list.lastChild);
    }
  };

  Wire.prototype.answered = function (exchange) {
    var reply = exchange.reply;
    if (!reply) {
      return; // a quiet one, or asked while the list was paused
    }
    if (this.held === exchange) {
      this.held = null;
    }
    reply.className = "reply " + kind(exchange.status);
    exchange.clock.textContent = statusLine(exchange);
    span(exchange.clock, "after", "after " + seconds(exchange.started));
    if (exchange.retryAfter) {
      span(reply, "header", "Retry-After: " + exchange.retryAfter);
    }
    if (exchange.status) {
      answer(reply, exchange.answer);
    }
  };

  Wire.prototype.tick = function () {
    if (this.held && !document.hidden) {
      this.held.clock.textContent = "held for " + seconds(this.held.started);
    }
  };

  function path(url) {
    var link = document.createElement("a");
    link.href = url;
    return link.pathname;
  }

  function statusLine(exchange) {
    if (!exchange.status) {
      return "no answer";
    }
    return "HTTP/1.1 " + exchange.status + " " + exchange.reason;
  }

  function kind(status) {
    return status >= 200 && status < 300 ? "taken" : "refused";
  }

  function seconds(since) {
    return ((new Date() - since) / 1000).toFixed(1) + " s";
  }

  function answer(reply, body) {
    if (!body) {
      span(reply, "empty", "(empty)");
    } else if (/^[^:{\s]+:\S*(\n|$)/.test(body)) {
      body.split("\n").forEach(function (line) {
        pair(reply, line);
      });
    } else {
      span(reply, "body", body);
    }
  }

  /* One pair twice, as it came and decoded; the style sheet shows one of them. */
  function pair(reply, line) {
    var colon = line.indexOf(":");
    var raw = span(reply, "body raw", "");
    var plain = span(reply, "body plain", "");
    span(raw, "channel", line.slice(0, colon));
    raw.appendChild(document.createTextNode(":"));
    percents(span(raw, "message", ""), line.slice(colon + 1));
    span(plain, "channel", decode(line.slice(0, colon)));
    plain.appendChild(document.createTextNode(" "));
    span(plain, "message", decode(line.slice(colon + 1)));
  }

  /* %XX and %uXXXX a shade quieter than the letters between them. */
  function percents(element, text) {
    text.split(/((?:%u[0-9a-f]{4}|%[0-9a-f]{2})+)/i).forEach(function (part, index) {
      if (index % 2) {
        span(element, "escaped", part);
      } else if (part) {
        element.appendChild(document.createTextNode(part));
      }
    });
  }

  function decode(text) {
    try {
      return decodeURIComponent(text);
    } catch (error) {
      return text; // not a pair of ours after all
    }
  }

  function block(row, name) {
    var element = document.createElement("pre");
    element.className = name;
    row.appendChild(element);
    return element;
  }

  function span(parent, name, text) {
    var element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    parent.appendChild(element);
    return element;
  }

  return Wire;
}());
