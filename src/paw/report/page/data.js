// The page's data: the index, chunks of episodes on demand, and the state that the fragment names.
(() => {
  const FORMAT = 1;
  const KEPT = 6; // chunks in memory

  PAW.load = (page) => {
    if (page.format !== FORMAT) throw Error(`data of format ${page.format}; this page reads ${FORMAT}`);
    // A metric may be called like something that every object has.
    for (const names of [page.metrics, ...page.runs.map((run) => run.metrics)]) Object.setPrototypeOf(names, null);
    PAW.page = page;
    PAW.table = null;
    chunks.clear();
  };

  const chunks = new Map();
  PAW.unpacked = 0; // chunks so far

  async function unpack(number) {
    PAW.unpacked += 1;
    if (PAW.page.live) {
      const response = await fetch(`chunk/${number}`, { cache: "no-store" });
      if (!response.ok) throw Error(`the server has no chunk ${number} (${response.status})`);
      return response.json();
    }
    if (!globalThis.DecompressionStream) throw Error("this browser has no DecompressionStream: a newer one unpacks episodes");
    const text = document.getElementById(`chunk-${number}`).textContent;
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return JSON.parse(await new Response(stream).text());
  }

  /** A chunk, as a promise; the last few stay in memory. */
  PAW.chunk = (number) => {
    const promise = chunks.get(number) ?? unpack(number);
    chunks.delete(number);
    chunks.set(number, promise);
    promise.catch(() => chunks.delete(number));
    if (chunks.size > KEPT) chunks.delete(chunks.keys().next().value);
    return promise;
  };

  /** Without keeping it: for a walk over all of them. */
  PAW.passing = (number) => chunks.get(number) ?? unpack(number);

  /** Rows of all runs' episodes, built once. */
  PAW.rows = () => {
    PAW.table ??= PAW.page.runs.map((run, number) => {
      const columns = run.episodes;
      return columns.group.map((_, row) => rowOf(run, number, columns, row));
    });
    return PAW.table;
  };

  function rowOf(run, number, columns, row) {
    return {
      run: number,
      row,
      update: columns.update[row],
      group: columns.group[row],
      index: columns.index[row],
      task: run.tasks[columns.task[row]] ?? { id: "", kind: "", instruction: "" },
      success: columns.success[row],
      return: columns.return[row],
      turns: columns.turns[row],
      valid: columns.valid[row],
      failure: columns.failure[row],
      nll: columns.nll[row],
      advantage: columns.advantage[row],
      chunk: columns.chunk[row],
      place: columns.place[row],
      why: columns.why[row],
      kept: columns.chunk[row] >= 0,
    };
  }

  PAW.row = (run, row) => PAW.rows()[run]?.[row];

  /** The whole episode of a row that was kept. */
  PAW.episode = async (row) => (await PAW.chunk(row.chunk)).episodes[row.place];

  /** Rows of the same update and group of a run, in their order. */
  PAW.groupOf = (row) =>
    PAW.rows()
      [row.run].filter((other) => other.group === row.group && other.update === row.update)
      .sort((a, b) => a.index - b.index);

  PAW.result = (row) => (row.failure != null ? "failed" : row.success ? "success" : "no success");

  /** "update 12 · group 3 · index 5" */
  PAW.where = (row) =>
    [
      row.update == null ? null : `update ${row.update}`,
      `group ${row.group}`,
      `index ${row.index}`,
    ]
      .filter(Boolean)
      .join(" · ");

  // What the fragment says. Empty values do not stand in it.
  PAW.state = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  PAW.link = (state) => {
    const kept = Object.entries(state).filter(([, value]) => value != null && value !== "");
    return `#${new URLSearchParams(kept)}`;
  };
  PAW.go = (state, { replace = false } = {}) => {
    const link = PAW.link(state);
    if (link === location.hash) return;
    if (!replace) {
      location.hash = link; // an event follows
      return;
    }
    history.replaceState(null, "", link);
    PAW.render();
  };
  PAW.linkOf = (row, more = {}) =>
    PAW.link({ run: row.run, view: "episodes", episode: row.row, ...more });

  /** A whole number of the state, or null. */
  PAW.whole = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : null);
})();
