/* The page: connects the registration with the figures, the wall, the switches and the wire. */
(function () {
  "use strict";

  var CHANNELS = ["cpu", "memory", "network", "machine", "wall"];
  var TOKEN = document.querySelector("meta[name=admin-token]").content;

  var charts = {
    cpu: new Chart(byId("cpu-chart"), { series: ["total"], ceiling: 100 }),
    memory: new Chart(byId("memory-chart"), { series: ["used"], ceiling: 1 }),
    network: new Chart(byId("network-chart"), { series: ["in", "out"], floor: 10000, mirror: true })
  };
  var wire = new Wire(byId("wire-list"), byId("wire-pause"), byId("wire-decoded"));
  var wall = new WallView(call);
  var operate = new Operate(callAdmin, function () {
    registration.wake();
    document.dispatchEvent(new CustomEvent("operated"));
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
  var received = 0; // figures on the channel cpu

  var show = {
    cpu: function (cpu) {
      received += 1;
      value("cpu-value", cpu.total.toFixed(1), "%");
      byId("cpu-value").setAttribute("data-count", received);
      byId("cpu-cores-count").textContent = cpu.cores.length === 1
        ? "1 core" : cpu.cores.length + " cores";
      bars(byId("cpu-cores"), cpu.cores);
      charts.cpu.push([cpu.total]);
    },
    memory: function (memory) {
      var part = memory.used / memory.total;
      value("memory-value", (part * 100).toFixed(1), "%");
      byId("memory-used").textContent = gibibytes(memory.used);
      byId("memory-total").textContent = gibibytes(memory.total);
      byId("memory-bar").style.width = part * 100 + "%";
      charts.memory.push([part]);
    },
    network: function (network) {
      var rate = bytes(network["in"]);
      value("network-value", rate[0], rate[1] + "/s");
      byId("network-in").textContent = bytes(network["in"]).join(" ") + "/s";
      byId("network-out").textContent = bytes(network.out).join(" ") + "/s";
      charts.network.push([network["in"], network.out]);
      byId("network-ceiling").textContent = bytes(charts.network.ceiling).join(" ") + "/s";
    },
    machine: function (machine) {
      byId("machine-load").textContent = machine.load.map(function (load) {
        return load.toFixed(2);
      }).join("  ");
      byId("machine-processes").textContent = String(machine.processes);
      byId("machine-uptime").textContent = duration(machine.uptime);
      newest = machine.posts;
    },
    wall: function (post) {
      newest = post.number;
      wall.show(post);
    }
  };

  var words = {
    connecting: function () {
      return "";
    },
    live: function () {
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
    beat();
    banner(words[name](detail), detail.pause);
    if (name === before) {
      return;
    }
    byId("state").setAttribute("data-state", name);
    byId("state-word").textContent = name;
    document.documentElement.setAttribute("data-state", name);
    operate.look();
  }

  function banner(text, pause) {
    var line = byId("banner-line");
    // Unchanged words are left alone: assistive technology reads every change aloud.
    if (text && byId("banner-text").textContent !== text) {
      byId("banner-text").textContent = text;
    }
    byId("banner").classList.toggle("shown", Boolean(text));
    if (pause && line.animate) {
      line.animate([{ transform: "scaleX(1)" }, { transform: "scaleX(0)" }], pause);
    }
  }

  /* The comet in the masthead glows when an answer comes; few frames, for each is painted anew. */
  function beat() {
    var head = byId("comet-glow");
    if (head.animate && !window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      head.animate([{ opacity: 1 }, { opacity: 0.45 }], { duration: 900, easing: "steps(12)" });
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

  function bars(element, cores) {
    while (element.children.length < cores.length) {
      element.appendChild(document.createElement("i")).appendChild(document.createElement("b"));
    }
    element.classList.toggle("many", cores.length > 24);
    element.classList.toggle("very-many", cores.length > 80);
    cores.forEach(function (percent, index) {
      var bar = element.children[index];
      bar.firstChild.style.transform = "scaleY(" + percent / 100 + ")";
      bar.title = "core " + index + ": " + percent.toFixed(0) + " %";
    });
  }

  function value(id, number, unit) {
    byId(id).firstElementChild.textContent = number;
    byId(id).lastElementChild.textContent = unit;
  }

  function bytes(number) {
    var units = ["B", "kB", "MB", "GB"];
    var power = 0;
    while (number >= 999.5 && power < units.length - 1) {
      number /= 1000;
      power += 1;
    }
    return [power && number < 99.95 ? number.toFixed(1) : number.toFixed(0), units[power]];
  }

  function gibibytes(number) {
    return (number / 1073741824).toFixed(1) + " GiB";
  }

  function duration(seconds) {
    var minutes = Math.floor(seconds / 60);
    var hours = Math.floor(minutes / 60);
    var days = Math.floor(hours / 24);
    if (days) {
      return days + " d " + hours % 24 + " h";
    }
    return hours ? hours + " h " + minutes % 60 + " min" : minutes + " min";
  }

  function byId(id) {
    return document.getElementById(id);
  }

  byId("curl").textContent = "curl -d registration=cpu -H 'Content-Type: " +
    "application/x-ocsigen-comet' " + location.origin + location.pathname;

  // The polls of this tab, made in tab.js; too many to be shown unasked.
  document.addEventListener("asked", function (event) {
    if (byId("wire-polls").checked) {
      wire.asked(event.detail);
    }
  });
  document.addEventListener("answered", function (event) {
    wire.answered(event.detail);
  });

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
