/* The wall: its form, and its list with the newest post on top.
 *
 * Posts are numbered, for the page of 2010. One that is the next in line is put on top; at any
 * other number that page has missed something (registration requests keep no position) and reads
 * the wall again. Who follows the channel by positions just adds what comes.
 */
var WallView = (function () {
  "use strict";

  var KEPT = 50;

  /* `call({method, url, type, body}, done(status, answer))` makes a request. */
  function WallView(call) {
    this.call = call;
    this.list = document.getElementById("wall-list");
    this.form = document.getElementById("wall-form");
    this.field = document.getElementById("wall-text");
    this.left = document.getElementById("wall-left");
    this.note = document.getElementById("wall-note");
    this.latest = null; // number of the newest post shown; null until the wall was read
    this.reading = false;
    this.opened = new Date();
    this.form.addEventListener("submit", this.submit.bind(this));
    this.field.addEventListener("input", this.count.bind(this));
    this.count();
  }

  WallView.prototype.count = function () {
    this.left.textContent = String(this.field.maxLength - this.field.value.length);
  };

  WallView.prototype.submit = function (event) {
    var self = this;
    var text = this.field.value.trim();
    event.preventDefault();
    if (!text) {
      this.field.focus();
      return;
    }
    this.call({
      method: "POST",
      url: "wall",
      type: "application/json",
      body: JSON.stringify({ text: text })
    }, function (status) {
      self.posted(status);
    });
  };

  WallView.prototype.posted = function (status) {
    if (status === 201) {
      this.note.textContent = "";
      this.field.value = "";
      this.count();
    } else {
      this.note.textContent = status === 422
        ? "Not posted: between 1 and " + this.field.maxLength + " characters, please."
        : "Not posted: " + (status ? "the server answered " + status : "no answer") + ".";
    }
    this.field.focus();
  };

  /* A post came over the channel. */
  WallView.prototype.show = function (post) {
    if (this.latest !== null && post.number === this.latest + 1) {
      this.add(post);
    }
  };

  WallView.prototype.add = function (post) {
    this.latest = post.number;
    this.prepend(post).className = new Date(post.at) > this.opened ? "new" : "";
  };

  /* The server says which post is the newest one. */
  WallView.prototype.expect = function (number) {
    if (number !== this.latest) {
      this.read();
    }
  };

  WallView.prototype.read = function () {
    var self = this;
    if (this.reading) {
      return;
    }
    this.reading = true;
    this.call({ method: "GET", url: "wall" }, function (status, answer) {
      self.reading = false;
      if (status === 200) {
        self.replace(JSON.parse(answer));
      }
    });
  };

  WallView.prototype.replace = function (posts) {
    this.list.textContent = "";
    posts.forEach(this.prepend, this);
    this.latest = posts.length ? posts[posts.length - 1].number : 0;
  };

  WallView.prototype.prepend = function (post) {
    var item = document.createElement("li");
    var text = document.createElement("p");
    var time = document.createElement("time");
    text.textContent = post.text;
    time.dateTime = post.at;
    time.textContent = new Date(post.at).toLocaleTimeString([], {
      hour: "2-digit",
      minute: "2-digit"
    });
    item.appendChild(text);
    item.appendChild(time);
    this.list.insertBefore(item, this.list.firstChild);
    while (this.list.children.length > KEPT) {
      this.list.removeChild(this.list.lastChild);
    }
    return item;
  };

  return WallView;
}());
