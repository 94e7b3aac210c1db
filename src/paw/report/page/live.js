// A live page asks its server for what is new and draws that, where the reader is.
(() => {
  const EVERY = 2000; // milliseconds
  let tag = "";

  async function ask() {
    const headers = tag ? { "If-None-Match": tag } : {};
    const response = await fetch("page.json", { headers, cache: "no-store" });
    if (response.status === 304) return false;
    if (!response.ok) throw Error(`the server says ${response.status}`);
    const page = await response.json();
    tag = response.headers.get("ETag") ?? "";
    PAW.load(page);
    return true;
  }

  PAW.live = async (told) => {
    for (;;) {
      try {
        // Nobody looks at a hidden page.
        if (!document.hidden && (await ask())) PAW.refresh();
        told(`live · ${new Date().toLocaleTimeString()}`);
      } catch (error) {
        told(`no answer from the server: ${error.message}`, true);
      }
      await new Promise((done) => setTimeout(done, EVERY));
    }
  };
})();
