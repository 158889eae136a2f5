/* Area charts of the last minute, in SVG, so that the style sheet colours them in light and dark.
 *
 * A value a second enters at the right. A second without a value is a hole in the line: what the
 * page was not told it does not draw.
 */
var Chart = (function () {
  "use strict";

  var SVG = "http://www.w3.org/2000/svg";
  var STEPS = 60; // seconds in view
  var STEP = 1000; // ms from one to the next
  var HEIGHT = 100;
  var MARGIN = 3; // room for the line's width at both ends of the scale
  var still = window.matchMedia("(prefers-reduced-motion: reduce)");

  /* `series` class names, one per line; `ceiling` the top of the scale, or none to follow the
   * values, at least `floor`; `mirror` draws the second series downwards from the middle. */
  function Chart(element, options) {
    this.element = element;
    this.options = options;
    this.rows = []; // one array of values per step, or null for a hole
    this.last = 0; // seconds, when the newest was measured
    this.ceiling = options.ceiling || options.floor;
    this.svg = make("svg", {
      // One step wider than the view: while the chart glides, the oldest value leaves at the left.
      viewBox: "0 0 " + (STEPS + 1) + " " + HEIGHT,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
      focusable: "false"
    });
    this.paths = options.series.map(this.addSeries, this);
    element.appendChild(this.svg);
  }

  Chart.prototype.addSeries = function (name) {
    var area = make("path", { "class": "area " + name });
    var line = make("path", { "class": "line " + name, "vector-effect": "non-scaling-stroke" });
    this.svg.appendChild(area);
    this.svg.appendChild(line);
    return { area: area, line: line };
  };

  Chart.prototype.push = function (at, values) {
    var missed = this.last ? Math.round(at - this.last) - 1 : 0;
    if (missed < 0) {
      this.rows = []; // told again from further back
    }
    for (var i = 0; i < Math.min(missed, STEPS); i += 1) {
      this.rows.push(null);
    }
    this.rows.push(values);
    this.rows = this.rows.slice(-STEPS - 2);
    this.last = at;
    this.ceiling = this.options.ceiling || nice(Math.max(this.options.floor, this.highest()));
    this.draw();
    this.glide();
  };

  Chart.prototype.highest = function () {
    return this.rows.reduce(function (top, row) {
      return row ? Math.max.apply(null, row.concat(top)) : top;
    }, 0);
  };

  Chart.prototype.draw = function () {
    this.paths.forEach(function (path, series) {
      var runs = this.runs(series);
      var ground = this.options.mirror ? HEIGHT / 2 : HEIGHT;
      path.line.setAttribute("d", runs.map(line).join(""));
      path.area.setAttribute("d", runs.map(function (points) {
        return area(points, ground);
      }).join(""));
    }, this);
  };

  /* The points of one series, cut where there is a hole. */
  Chart.prototype.runs = function (series) {
    var self = this;
    var runs = [];
    var open = false;
    var first = STEPS + 2 - this.rows.length;
    this.rows.forEach(function (row, index) {
      if (!row) {
        open = false;
        return;
      }
      if (!open) {
        runs.push([]);
        open = true;
      }
      runs[runs.length - 1].push([first + index - 1, self.height(row[series], series)]);
    });
    return runs;
  };

  Chart.prototype.height = function (value, series) {
    var part = Math.min(Math.max(value / this.ceiling, 0), 1);
    if (this.options.mirror) {
      return HEIGHT / 2 + (series ? 1 : -1) * part * (HEIGHT / 2 - MARGIN);
    }
    return HEIGHT - MARGIN - part * (HEIGHT - 2 * MARGIN);
  };

  /* Slide the whole picture by the step it has just gained. It moves a few pixels in a second, so
   * twenty frames look like sixty and cost a third. */
  Chart.prototype.glide = function () {
    if (still.matches || !this.svg.animate || document.hidden) {
      return;
    }
    if (this.animation) {
      this.animation.cancel();
    }
    this.animation = this.svg.animate(
      [{ transform: "translateX(" + 100 / (STEPS + 1) + "%)" }, { transform: "none" }],
      { duration: STEP, easing: "steps(20)" }
    );
  };

  function line(points) {
    // A lone point gets a short line of its own, or it would not be seen at all.
    var more = points.length === 1 ? "h.3" : "";
    return "M" + points.map(pair).join("L") + more;
  }

  function area(points, ground) {
    var first = points[0][0];
    var last = points[points.length - 1][0];
    return "M" + first + "," + ground + "L" + points.map(pair).join("L") +
      "L" + last + "," + ground + "Z";
  }

  function pair(point) {
    return point[0] + "," + point[1].toFixed(2);
  }

  /* The next of 1, 2, 5, 10, 20, 50 … that is not below the value. */
  function nice(value) {
    var power = Math.pow(10, Math.floor(Math.log(value) / Math.LN10));
    var digit = value / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  }

  function make(tag, attributes) {
    var element = document.createElementNS(SVG, tag);
    Object.keys(attributes).forEach(function (name) {
      element.setAttribute(name, attributes[name]);
    });
    return element;
  }

  return Chart;
}());
