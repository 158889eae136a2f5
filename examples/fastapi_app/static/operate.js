/* The operator's switches: activate, deactivate, the timeout, the command line, and the status.
 *
 * Every button is one request to the admin endpoints, with the token the page was served with.
 */
var Operate = (function () {
  "use strict";

  var LOOK_AGAIN = 5000; // ms; the status has no channel
  var FIRST = ["active", "timeout", "channels", "listeners"];

  /* `call({method, url, type, body, quiet}, done(status, answer))` makes a request with the token;
   * `changed()` is called when a switch has been moved. */
  function Operate(call, changed) {
    var self = this;
    this.call = call;
    this.changed = changed;
    this.status = document.getElementById("status");
    this.note = document.getElementById("operate-note");
    this.bind();
    setInterval(function () {
      if (!document.hidden) {
        self.look();
      }
    }, LOOK_AGAIN);
  }

  Operate.prototype.bind = function () {
    var self = this;
    on("activate", "click", function () {
      self.post("activate", null, "");
    });
    on("deactivate", "click", function () {
      self.post("deactivate", null, "");
    });
    on("timeout-form", "submit", function () {
      var seconds = parseFloat(document.getElementById("timeout-seconds").value);
      var kill = document.getElementById("timeout-kill").checked;
      self.post("timeout", "application/json", JSON.stringify({ seconds: seconds, kill: kill }));
    });
    on("command-form", "submit", function () {
      self.post("command", "text/plain", document.getElementById("command").value);
    });
  };

  Operate.prototype.post = function (name, type, body) {
    var self = this;
    var what = { method: "POST", url: "comet/admin/" + name, type: type, body: body };
    this.call(what, function (status, answer) {
      self.answered(name, status, answer);
      self.changed();
    });
  };

  Operate.prototype.look = function () {
    var self = this;
    this.call({ method: "GET", url: "comet/admin/status", quiet: true }, function (status, answer) {
      if (status === 200) {
        self.show(JSON.parse(answer));
      }
    });
  };

  Operate.prototype.answered = function (name, status, answer) {
    this.note.className = status === 200 ? "good" : "bad";
    if (status === 200) {
      this.show(JSON.parse(answer));
      this.note.textContent = "Done: " + name + ".";
    } else {
      this.note.textContent = status ? status + ": " + answer : "No answer from the server.";
    }
  };

  Operate.prototype.show = function (status) {
    var rest = Object.keys(status).filter(function (name) {
      return FIRST.indexOf(name) < 0;
    });
    this.status.textContent = "";
    this.status.setAttribute("data-active", String(status.active));
    FIRST.concat(rest).forEach(function (name) {
      if (name in status) {
        this.status.appendChild(entry(name, status[name], FIRST.indexOf(name) >= 0));
      }
    }, this);
  };

  function entry(name, value, large) {
    var group = document.createElement("div");
    var term = document.createElement("dt");
    var detail = document.createElement("dd");
    group.className = (large ? "large " : "") + name;
    term.textContent = name;
    detail.textContent = word(name, value);
    group.appendChild(term);
    group.appendChild(detail);
    return group;
  }

  function word(name, value) {
    if (value === null) {
      return "none";
    }
    if (typeof value === "boolean") {
      return value ? "yes" : "no";
    }
    if (Array.isArray(value)) {
      return String(value.length);
    }
    if (typeof value === "object") {
      return name === "broker" ? value.trouble || "connected" : value.listeners + " listeners";
    }
    return name === "timeout" ? value + " s" : String(value);
  }

  function on(id, event, act) {
    document.getElementById(id).addEventListener(event, function (happened) {
      happened.preventDefault();
      act();
    });
  }

  return Operate;
}());
