// Any WebSocket, and what it is told as lines. It keeps the positions, and comes back with them.
function follow(WebSocket, url, channels, tell) {
  const positions = Object.fromEntries(channels.map((name) => [name, "now"]))
  let begun = false
  function connect() {
    const socket = new WebSocket(url, "comet.v1")
    const subscribe = () => socket.send(JSON.stringify({ subscribe: positions }))
    socket.onopen = subscribe
    socket.onerror = () => {} // onclose follows
    socket.onclose = () => setTimeout(connect, 50)
    socket.onmessage = (message) => {
      for (const { channel, position, data, error } of JSON.parse(message.data).events) {
        if (position !== undefined) positions[channel] = position
        if (data !== undefined) tell(`${channel} ${data}`)
        if (error !== undefined) tell(`:${error} ${channel}`)
        if (error === "full") socket.send(JSON.stringify({ subscribe: { [channel]: position } }))
      }
      if (!begun && !Object.values(positions).includes("now")) {
        begun = true
        tell(":open")
      }
    }
  }
  connect()
}

globalThis.follow = follow
