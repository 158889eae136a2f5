// Any EventSource, and what it is told as lines. It comes back by itself.
function follow(source, channels, tell) {
  source.addEventListener(":open", () => tell(":open"))
  for (const name of channels) {
    source.addEventListener(name, ({ data }) => tell(`${name} ${JSON.parse(data)}`))
  }
  for (const name of [":full", ":closed", ":forbidden"]) {
    source.addEventListener(name, ({ data }) => tell(`${name} ${JSON.parse(data).channel}`))
  }
}

globalThis.follow = follow
