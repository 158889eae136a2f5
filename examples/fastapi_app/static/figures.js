/* The machine's figures, a function for each channel: `Figures.cpu(figure)` and so on. */
var Figures = (function () {
  "use strict";

  var charts = {
    cpu: new Chart(byId("cpu-chart"), { series: ["total"], ceiling: 100 }),
    memory: new Chart(byId("memory-chart"), { series: ["used"], ceiling: 1 }),
    network: new Chart(byId("network-chart"), { series: ["in", "out"], floor: 10000, mirror: true })
  };
  var received = 0; // figures on the channel cpu

  var show = { // by channel
    cpu: function (cpu) {
      received += 1;
      value("cpu-value", cpu.total.toFixed(1), "%");
      byId("cpu-value").setAttribute("data-count", received);
      byId("cpu-cores-count").textContent = cpu.cores.length === 1
        ? "1 core" : cpu.cores.length + " cores";
      bars(byId("cpu-cores"), cpu.cores);
      charts.cpu.push(cpu.at, [cpu.total]);
    },
    memory: function (memory) {
      var part = memory.used / memory.total;
      value("memory-value", (part * 100).toFixed(1), "%");
      byId("memory-used").textContent = gibibytes(memory.used);
      byId("memory-total").textContent = gibibytes(memory.total);
      byId("memory-bar").style.width = part * 100 + "%";
      charts.memory.push(memory.at, [part]);
    },
    network: function (network) {
      var rate = bytes(network["in"]);
      value("network-value", rate[0], rate[1] + "/s");
      byId("network-in").textContent = bytes(network["in"]).join(" ") + "/s";
      byId("network-out").textContent = bytes(network.out).join(" ") + "/s";
      charts.network.push(network.at, [network["in"], network.out]);
      byId("network-ceiling").textContent = bytes(charts.network.ceiling).join(" ") + "/s";
    },
    machine: function (machine) {
      byId("machine-load").textContent = machine.load.map(function (load) {
        return load.toFixed(2);
      }).join("  ");
      byId("machine-processes").textContent = String(machine.processes);
      byId("machine-uptime").textContent = duration(machine.uptime);
      beat();
    }
  };

  /* The comet in the masthead glows when an answer comes; few frames, for each is painted anew. */
  function beat() {
    var head = byId("comet-glow");
    if (head.animate && !window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      head.animate([{ opacity: 1 }, { opacity: 0.45 }], { duration: 900, easing: "steps(12)" });
    }
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

  return show;
}());
