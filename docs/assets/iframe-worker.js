// Browsers refuse to start a worker for a page opened from disk, and the site's search runs in one. This class
// runs the worker's script in a hidden frame instead, with the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #ready;

    constructor(url) {
      super();
      this.#frame.hidden = true;
      this.#ready = new Promise((done) => this.#frame.addEventListener("load", () => this.#start(url, done)));
      document.documentElement.append(this.#frame);
    }

    postMessage(data) {
      this.#ready.then(() => this.#send(this.#frame.contentWindow, data));
    }

    terminate() {
      this.#frame.remove();
    }

    #start(url, done) {
      const inside = this.#frame.contentWindow;
      inside.postMessage = (data) => this.#send(this, data);
      inside.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => this.#load(each)), Promise.resolve());
      this.#load(url).then(done);
    }

    #load(url) {
      return new Promise((done, failed) => {
        const script = this.#frame.contentDocument.createElement("script");
        script.src = new URL(url, location.href);
        script.onload = done;
        script.onerror = () => failed(new Error(`cannot load ${url}`));
        this.#frame.contentDocument.body.append(script);
      });
    }

    #send(target, data) {
      target.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
