/* The frames of the two tabs are as high as what is in them. */
for (const frame of document.querySelectorAll("iframe")) {
  frame.addEventListener("load", () => fit(frame))
  fit(frame) // it may be loaded already
}

function fit(frame) {
  const { body } = frame.contentDocument
  if (!body) return
  new ResizeObserver(() => (frame.style.height = `${body.offsetHeight}px`)).observe(body)
}
