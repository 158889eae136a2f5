"""News for everyone who has the page open: the README's first lines."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import SITE, Comet, CometMiddleware

comet = Comet("change me: a secret of at least 32 bytes")
news = comet.create(scope=SITE, name="news", type=str)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/news")
def post(text: str) -> None:
    news.publish(text)


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<ul></ul><script type="module">
      import { connect } from "/comet/comet.js"
      const news = connect().channel("news", { from: "last:10", onfull: "resume" })
      for await (const text of news)
        document.querySelector("ul").append(text, document.createElement("br"))
    </script>"""
