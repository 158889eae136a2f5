/* The page of 2010: connects the registration with figures, wall, switches and the wire. */
(function () {
  "use strict";

  var CHANNELS = ["cpu", "memory", "network", "machine", "wall"];
  var TOKEN = document.querySelector("meta[name=admin-token]").content;

  var wire = new Wire(byId("wire-list"), byId("wire-pause"), byId("wire-decoded"));
  var wall = new WallView(call);
  var operate = new Operate(callAdmin, function () {
    registration.wake();
  });
  var registration = new Registration("./", CHANNELS, {
    state: state,
    message: function (channel, text) {
      show[channel](JSON.parse(text));
    },
    ended: function (channel) {
      byId(channel + "-card").classList.add("ended");
    },
    batch: function () {
      if (newest !== null) {
        wall.expect(newest);
      }
    },
    asked: wire.asked.bind(wire),
    answered: wire.answered.bind(wire)
  });
  var newest = null; // number of the newest post, as the server last said

  var show = {
    wall: function (post) {
      newest = post.number;
      wall.show(post);
    },
    machine: function (machine) {
      newest = machine.posts;
      Figures.machine(machine);
    },
    cpu: Figures.cpu,
    memory: Figures.memory,
    network: Figures.network
  };

  var words = {
    connecting: function () {
      return "";
    },
    online: function () {
      return "";
    },
    deactivated: function (detail) {
      return "Push is switched off. The server answers 503" +
        (detail.retryAfter ? " and asks us to come back in " + detail.retryAfter + " s" : "") +
        "; we look again in a moment.";
    },
    offline: function (detail) {
      if (detail.ended) {
        return "Every channel has ended. Reload the page to start again.";
      }
      return "The server " + (detail.status ? "answered " + detail.status : "does not answer") +
        ". Trying again in " + Math.ceil(detail.pause / 1000) + " s.";
    }
  };

  function state(name, detail) {
    var before = byId("state").getAttribute("data-state");
    banner(words[name](detail));
    if (name === before) {
      return;
    }
    byId("state").setAttribute("data-state", name);
    byId("state-word").textContent = name;
    document.documentElement.setAttribute("data-state", name);
    operate.look();
  }

  /* Unchanged words are left alone: assistive technology reads every change aloud. */
  function banner(text) {
    if (byId("banner").textContent !== text) {
      byId("banner").textContent = text;
    }
  }

  /* One request of the page's own, `{method, url, type, body, token, quiet}`, shown on the wire
   * unless it is quiet; then `done(status, answer)`, with status 0 if there was no answer. */
  function call(what, done) {
    var request = new XMLHttpRequest();
    var exchange = { method: what.method, url: what.url, body: what.body, started: new Date() };
    exchange.headers = [
      what.token && "Authorization: Bearer …",
      what.type && "Content-Type: " + what.type
    ].filter(Boolean).join("\n");
    request.open(what.method, what.url);
    if (what.type) {
      request.setRequestHeader("Content-Type", what.type);
    }
    if (what.token) {
      request.setRequestHeader("Authorization", "Bearer " + what.token);
    }
    request.onloadend = function () {
      exchange.status = request.status;
      exchange.reason = request.statusText;
      exchange.answer = request.responseText;
      wire.answered(exchange);
      done(request.status, request.responseText);
    };
    request.send(what.body || null);
    if (!what.quiet) {
      wire.asked(exchange);
    }
  }

  function callAdmin(what, done) {
    what.token = TOKEN;
    call(what, done);
  }

  function byId(id) {
    return document.getElementById(id);
  }

  byId("curl").textContent = "curl -d registration=cpu -H 'Content-Type: " +
    "application/x-ocsigen-comet' " + location.origin + "/";

  // A page that is left aborts its request; it must not be seen going offline on its way out.
  window.addEventListener("pagehide", function () {
    registration.stop();
  });
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) {
      registration.start();
    }
  });
  window.addEventListener("online", function () {
    registration.wake();
  });
  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) {
      registration.wake();
    }
  });

  registration.start();
  operate.look();
  wall.read();
}());
