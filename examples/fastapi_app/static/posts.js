/* The posts of the wall, by positions. */
import { call, follow } from "./connection.js"

const wall = new WallView(call)
follow("wall", "last:50", (post) => wall.add(post), () => wall.replace([]))
