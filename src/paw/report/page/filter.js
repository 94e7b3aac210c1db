// Which episodes are in the table, and in what order: pure functions of the fragment's state.
(() => {
  const order = { success: 0, "no success": 1, failed: 2 };

  /** Columns of the table: name -> {title, value for sorting, number, words}. */
  PAW.columns = {
    run: { title: "run", value: (row) => row.run },
    update: { title: "update", value: (row) => row.update, number: true },
    group: { title: "group", value: (row) => row.group * 1e6 + row.index, number: true, about: "group and index of the attempt in it" },
    kind: { title: "kind", value: (row) => row.task.kind },
    task: { title: "task", value: (row) => row.task.instruction },
    result: { title: "result", value: (row) => order[PAW.result(row)] },
    return: { title: "return", value: (row) => row.return, number: true, about: "sum of the task's rewards" },
    turns: { title: "turns", value: (row) => row.turns, number: true },
    valid: { title: "valid", value: (row) => row.valid, number: true, about: "share of valid turns" },
    nll: { title: "nll", value: (row) => row.nll, number: true, about: "mean negative log-likelihood of a token of the next observations, nats" },
    advantage: { title: "advantage", value: (row) => row.advantage, number: true, about: "mean over its turns" },
    why: { title: "kept", value: (row) => (row.kept ? row.why : null), about: "why it stands in this page whole" },
  };

  /** "12" or "10-20" as [first, last]; null where it is neither. */
  PAW.range = (text) => {
    const match = /^\s*(\d+)\s*(?:[-–]\s*(\d+)\s*)?$/.exec(text ?? "");
    return match ? [Number(match[1]), Number(match[2] ?? match[1])] : null;
  };

  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  /** The rows that pass the state's filters, sorted; `hits` are rows whose texts hold the words. */
  PAW.filtered = (state, hits = null) => {
    const run = PAW.whole(state.run);
    const range = PAW.range(state.update);
    const sought = words(state.q ?? "");
    const passes = (row) =>
      (run == null || row.run === run) &&
      (!range || (row.update != null && row.update >= range[0] && row.update <= range[1])) &&
      (!state.kind || row.task.kind === state.kind) &&
      (!state.result || PAW.result(row) === state.result) &&
      (!state.kept || row.kept === (state.kept === "kept")) &&
      (!sought.length || hits?.has(row) || matches(row, sought));
    const rows = PAW.rows().flat().filter(passes);
    const name = (state.sort ?? "").replace(/^-/, "");
    if (!Object.hasOwn(PAW.columns, name)) return rows;
    const column = PAW.columns[name];
    const sign = state.sort.startsWith("-") ? -1 : 1;
    const keys = new Map(rows.map((row) => [row, column.value(row)]));
    const compare = (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x == null || y == null) return (x == null) - (y == null); // unknown ones last, always
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    };
    return rows.sort(compare);
  };

  function matches(row, sought) {
    const text = `${row.task.instruction} ${row.task.id} ${row.failure ?? ""}`.toLowerCase();
    return sought.every((word) => text.includes(word));
  }

  /** Rows of kept episodes whose texts hold all the words; one chunk at a time is in memory. */
  PAW.searchTexts = async (query, rows, progress) => {
    const sought = words(query);
    const hits = new Set();
    const byChunk = Map.groupBy(rows.filter((row) => row.kept), (row) => row.chunk);
    let done = 0;
    for (const [number, own] of byChunk) {
      const chunk = await PAW.passing(number);
      for (const row of own) {
        const turns = chunk.episodes[row.place].turns;
        const text = turns
          .flatMap((turn) => [turn.observation, turn.response, turn.command, turn.next_observation ?? ""])
          .join("\n")
          .toLowerCase();
        if (sought.every((word) => text.includes(word))) hits.add(row);
      }
      progress(++done, byChunk.size);
    }
    return hits;
  };
})();
