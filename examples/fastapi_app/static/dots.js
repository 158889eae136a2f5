/* A field of dots that fills column by column, one for each message, and begins again at the left.
 * Older dots are paler, so the newest ones look like a comet and its tail. */
const PITCH = 12 // pixels from one dot to the next
const PALEST = 0.22

export class Dots {
  #canvas
  #kinds = [] // of what is on the field, the oldest first
  #added = 0
  #asked = false

  constructor(canvas) {
    this.#canvas = canvas
    new ResizeObserver(() => this.#ask()).observe(canvas)
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#ask())
  }

  /* Adds a dot: `live`, `caught` or `missing`. The style sheet has its colour as `--dot-live` … */
  add(kind) {
    this.#kinds.push(kind)
    this.#added++
    this.#ask()
  }

  #ask() {
    if (this.#asked) return
    this.#asked = true
    requestAnimationFrame(() => {
      this.#asked = false
      this.#draw()
    })
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas
    const [columns, rows] = [Math.floor(width / PITCH), Math.floor(height / PITCH)]
    const cells = Math.max(columns * rows, 1)
    const pen = this.#begin(width, height)
    const colours = getComputedStyle(this.#canvas)
    const left = (width - columns * PITCH) / 2
    this.#kinds = this.#kinds.slice(-cells)
    this.#kinds.forEach((kind, index) => {
      const age = this.#kinds.length - 1 - index
      const cell = (this.#added - 1 - age) % cells
      const x = left + (Math.floor(cell / rows) + 0.5) * PITCH
      const y = ((cell % rows) + 0.5) * PITCH
      pen.fillStyle = pen.strokeStyle = colours.getPropertyValue(`--dot-${kind}`)
      pen.globalAlpha = Math.max(PALEST, 1 - (age / cells) * 1.1)
      dot(pen, x, y, kind === "missing", age === 0)
    })
  }

  #begin(width, height) {
    const scale = devicePixelRatio
    const pen = this.#canvas.getContext("2d")
    Object.assign(this.#canvas, { width: width * scale, height: height * scale })
    pen.scale(scale, scale)
    return pen
  }
}

function dot(pen, x, y, hollow, newest) {
  pen.beginPath()
  pen.lineWidth = 1.5
  pen.arc(x, y, hollow ? 2.75 : 3.5, 0, 7)
  hollow ? pen.stroke() : pen.fill()
  if (!newest) return
  pen.globalAlpha = 0.25
  pen.beginPath()
  pen.arc(x, y, 8, 0, 7)
  pen.fill()
}
