// Filters, searches and sorts the table of claims. In the book, the state of the controls is kept in the address.
(() => {
  const root = document.currentScript?.closest(".ledger") ?? document.getElementById("ledger");
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "yes";
  const FILTERS = ["verdict", "source", "chapter"];
  const START = "#ledger&"; // an address goes on with the state
  const form = root.querySelector("form");
  const { verdict, source, chapter, q, sort } = form.elements;
  const body = root.querySelector("tbody");
  const heads = [...root.querySelectorAll("th")];
  const plain = (text) => text.toLowerCase().replaceAll("\u2212", "-");
  const rows = [...body.rows].map((row, place) => ({ row, place, text: plain(row.textContent) }));
  const inBook = Boolean(root.closest(".bd-content"));
  let falling = false; // whether the largest come first

  const key = ({ row }, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? plain(cell.textContent) : Number(number);
  };

  /** Numbers by size and texts by alphabet; cells without a number come last, whatever the direction. */
  function compare(one, other, column) {
    const [a, b] = [key(one, column), key(other, column)];
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return (falling ? -order : order) || one.place - other.place;
  }

  function order() {
    const column = heads.findIndex((head) => head.dataset.column === sort.value);
    const sorted = column < 0 ? rows : [...rows].sort((one, other) => compare(one, other, column));
    body.append(...sorted.map(({ row }) => row));
    heads.forEach((head, n) => {
      if (n === column) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  function filter() {
    const asked = plain(q.value).split(/\s+/).filter(Boolean);
    const counts = new Map([...verdict.options].slice(1).map(({ value }) => [value, 0]));
    for (const { row, text } of rows) {
      const fits = FILTERS.every((name) => !form.elements[name].value || row.dataset[name] === form.elements[name].value);
      row.hidden = !(fits && asked.every((word) => text.includes(word)));
      if (!row.hidden) counts.set(row.dataset.verdict, counts.get(row.dataset.verdict) + 1);
    }
    const shown = [...counts.values()].reduce((sum, count) => sum + count, 0);
    const words = (name, count) => (count === 1 ? name : name.replace("holds", "hold"));
    const parts = [...counts].filter(([, count]) => count).map(([name, count]) => `${count} ${words(name, count)}`);
    const line = `${shown} of ${rows.length} claims shown${parts.length ? `: ${parts.join(", ")}` : ""}.`;
    const count = root.querySelector(".ledger-count");
    if (count.textContent !== line) count.textContent = line;
  }

  function remember() {
    if (!inBook) return;
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    if (falling && sort.value) state.set("order", "falling");
    const text = state.toString();
    history.replaceState(null, "", text ? START + text : location.pathname + location.search);
  }

  /** Sets the controls to what an address asks for; whatever the lists lack is left out. */
  function recall(state) {
    for (const name of [...FILTERS, "sort"]) {
      const list = form.elements[name];
      const asked = state.get(name) ?? "";
      list.value = [...list.options].some(({ value }) => value === asked) ? asked : "";
    }
    q.value = state.get("q") ?? "";
    falling = state.get("order") === "falling";
    order();
    filter();
  }

  /** Follows an address: to a state of the controls, or to a claim, which is shown even if it was filtered out. */
  function follow() {
    if (!inBook) return;
    const hash = decodeURIComponent(location.hash);
    if (hash.startsWith(START)) {
      recall(new URLSearchParams(location.hash.slice(START.length)));
      root.scrollIntoView();
      return;
    }
    const asked = rows.find(({ row }) => `#${row.id}` === hash);
    if (!asked?.row.hidden) return;
    recall(new URLSearchParams());
    asked.row.scrollIntoView();
  }

  for (const head of heads) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => {
      falling = sort.value === head.dataset.column && !falling;
      sort.value = head.dataset.column;
      order();
      remember();
    });
    head.replaceChildren(button);
  }
  for (const list of [verdict, source, chapter, q])
    list.addEventListener("input", () => (filter(), remember()));
  sort.addEventListener("input", () => ((falling = false), order(), remember()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    recall(new URLSearchParams());
    remember();
  });
  form.hidden = false;
  order();
  filter();
  follow();
  addEventListener("hashchange", follow);
})();
