// What a page does beside showing: tables sort and filter, figures answer to the pointer and the keyboard, and both share
// one selection of networks. No number is computed here: all come from the tables and from the data of the figures, and
// are only put in order, compared with a filter, or placed on an axis. Texts are always set as text, never as HTML.
// Without scripts the page still shows every table, and every figure as it is printed.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const shown = { seeds: true, intervals: true };
  const views = [];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const short = (value) => String(Number(value.toPrecision(3)));

  // ---- The selection: networks by run_id, shared by all tables and figures. ----

  const rowOf = new Map(); // run_id to its first row in a table of networks
  const settingsOf = new Map(); // table of networks to the names and columns of its settings
  let picked = new Set();
  const followers = []; // called after each change

  function pick(networks, add = false) {
    picked = new Set(add ? [...picked, ...networks] : networks);
    followers.forEach((follow) => follow());
  }

  // A run_id is a hash, but that of a folder from elsewhere may be anything, and the command is for copying.
  const quoted = (word) => (/^[\w.-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

  // Where several folders have a network, the name of its folder follows the run_id.
  function repeatCommand(network) {
    const row = rowOf.get(network);
    return row ? `${row.closest("table").dataset.repeat} ${quoted(network.split(" ")[0])}` : "";
  }

  function showSelection() {
    const count = make("p", { class: "count" });
    const choice = make("select", { "aria-label": "Network to repeat" });
    const code = make("code", { tabindex: "0" });
    const copy = make("button", { type: "button" }, "Copy");
    const rows = make("button", { type: "button" }, "Show in table");
    const clear = make("button", { type: "button", onclick: () => pick([]) }, "Clear");
    const panel = make("aside", { class: "selection", "aria-label": "Selected networks", hidden: "" });
    panel.append(make("div", { class: "line", "aria-live": "polite" }, count, choice, rows, clear));
    panel.append(make("div", { class: "line" }, make("pre", {}, code), copy));
    document.body.append(panel);

    const showCommand = () => (code.textContent = repeatCommand(choice.value));
    choice.addEventListener("change", showCommand);
    copy.addEventListener("click", () => {
      getSelection().selectAllChildren(code);
      navigator.clipboard?.writeText(code.textContent).catch(() => {});
    });
    rows.addEventListener("click", () => {
      const row = rowOf.get(choice.value);
      row.closest("details")?.setAttribute("open", "");
      row.scrollIntoView({ block: "center" });
      row.querySelector("button").focus({ preventScroll: true });
    });
    followers.push(() => {
      panel.hidden = picked.size === 0;
      document.body.classList.toggle("selecting", picked.size > 0);
      count.textContent = picked.size === 1 ? "1 network selected:" : `${picked.size} networks selected; to repeat one:`;
      choice.replaceChildren(...[...picked].map((network) => make("option", {}, network)));
      rows.hidden = copy.hidden = !rowOf.has(choice.value);
      showCommand();
    });
  }

  // ---- Tables ----

  const number = (text) => (/^[-+]?[\d.]/.test(text) ? parseFloat(text) : NaN);

  // Numbers before other texts, and what is absent last, in whichever direction.
  function compare(one, other, direction) {
    const absent = (one === "-") - (other === "-");
    if (absent) return absent;
    const [a, b] = [number(one), number(other)];
    if (!isNaN(a) && !isNaN(b)) return (a - b) * direction;
    return (isNaN(a) - isNaN(b) || one.localeCompare(other)) * direction;
  }

  // A filter is a text that a cell holds, or a comparison of the number in it: >0.3, <=2, =1, 0.1..0.5.
  function passes(text, filter) {
    const bound = filter.match(/^(<=|>=|<|>|=)\s*(\S+)$/);
    const range = filter.match(/^(\S+)\.\.(\S+)$/);
    const value = number(text);
    if (range) return value >= Number(range[1]) && value <= Number(range[2]);
    if (!bound) return text.toLowerCase().includes(filter.toLowerCase());
    const end = Number(bound[2]);
    if (isNaN(end)) return bound[1] === "=" && text === bound[2];
    return { "<=": value <= end, ">=": value >= end, "<": value < end, ">": value > end, "=": value === end }[bound[1]];
  }

  function readTable(table) {
    const groups = []; // a row with the sentence below it, if there is one
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("note")) groups.at(-1).push(row);
      else groups.push([row]);
    }
    return groups;
  }

  function sortable(table, groups) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", class: "sort" }, ...head.childNodes);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
        const text = (group) => group[0].cells[column].textContent;
        groups.sort((one, other) => compare(text(one), text(other), direction));
        table.tBodies[0].append(...groups.flat());
      });
    });
  }

  function filterable(table, groups) {
    const ofNetworks = "repeat" in table.dataset;
    const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search this table" });
    const only = make("input", { type: "checkbox" });
    const onlyLabel = make("label", { hidden: "" }, only, " selected alone");
    const told = make("span", { class: "told", role: "status" });
    const hint = make("span", { class: "told" }, "Filter by a text, or by >0.3, <=2 or 0.1..0.5 for numbers.");
    hint.hidden = !ofNetworks;
    const filters = [...table.tHead.rows[0].cells].map((head) =>
      make("input", { type: "search", "aria-label": `Filter ${head.textContent}`, size: "6" }));
    const line = make("tr", { class: "filters" }, ...filters.map((filter) => make("td", {}, filter)));
    line.hidden = !ofNetworks;
    const toggle = make("button", { type: "button", "aria-expanded": String(ofNetworks) }, "Filters by column");
    toggle.addEventListener("click", () => {
      line.hidden = hint.hidden = !line.hidden;
      toggle.setAttribute("aria-expanded", String(!line.hidden));
    });
    table.tHead.append(line);
    table.parentElement.before(make("div", { class: "controls" }, search, toggle, onlyLabel, told, hint));

    function filter() {
      const words = search.value.trim().toLowerCase();
      const bounds = filters.map((each) => each.value.trim());
      let count = 0;
      for (const group of groups) {
        const cells = [...group[0].cells].map((cell) => cell.textContent);
        const visible =
          (!only.checked || picked.has(group[0].dataset.network)) &&
          bounds.every((bound, column) => !bound || passes(cells[column], bound)) &&
          (!words || group.some((row) => row.textContent.toLowerCase().includes(words)));
        group.forEach((row) => (row.hidden = !visible));
        count += visible;
      }
      told.textContent = count < groups.length ? `${count} of ${groups.length} rows` : `${count} rows`;
    }
    [search, ...filters].forEach((input) => input.addEventListener("input", filter));
    only.addEventListener("change", filter);
    if (ofNetworks) {
      followers.push(() => {
        onlyLabel.hidden = picked.size === 0;
        if (picked.size === 0) only.checked = false;
        filter();
      });
    }
    filter();
  }

  function networkRows(table, groups) {
    const headings = [...table.tHead.rows[0].cells].map((head) => head.textContent);
    settingsOf.set(table, JSON.parse(table.dataset.settings).map((name) => [name, headings.indexOf(name)]));
    for (const [row] of groups) {
      const network = row.dataset.network;
      if (!rowOf.has(network)) rowOf.set(network, row);
      const button = make("button", { type: "button", class: "pick", "aria-pressed": "false" }, network);
      row.cells[0].replaceChildren(button);
    }
    table.addEventListener("click", (event) => {
      const button = event.target.closest("button.pick");
      if (button) pick([button.textContent], event.shiftKey || event.ctrlKey || event.metaKey);
    });
    followers.push(() => {
      for (const [row] of groups) {
        const chosen = picked.has(row.dataset.network);
        row.classList.toggle("chosen", chosen);
        row.cells[0].firstChild.setAttribute("aria-pressed", String(chosen));
      }
    });
  }

  function interactiveTable(table) {
    const groups = readTable(table);
    if ("repeat" in table.dataset) networkRows(table, groups);
    if (groups.length > 1) sortable(table, groups);
    if (groups.length >= 8) filterable(table, groups);
  }

  // ---- Figures ----

  const tip = make("div", { class: "tip", role: "status", hidden: "" });

  const MEMBER = 0, MEAN = 1, GUIDE = 3; // what a row is, as modulab.report.chart.SHOWN numbers it

  const ends = (low, high) => (low == null ? "" : ` [${short(low)}, ${short(high)}]`);

  // A cell of a matrix as a row, by its number from the top left.
  function matrixCell({ values, rows, columns }, place) {
    const [across, down] = [place % columns.length, Math.floor(place / columns.length)];
    return { o: place, m: MEAN, a: 0, n: null, x: across + 0.5, y: down + 0.5, v: values[place], w: `${columns[across]}\n${rows[down]}` };
  }

  // A matrix as an image of one pixel per cell, by colours at equal steps, between which it is linear.
  function matrixImage({ values, columns, largest, colours }, darkly) {
    const stops = colours[darkly ? "dark" : "light"].map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
    const canvas = make("canvas", { width: columns.length, height: values.length / columns.length });
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    values.forEach((value, place) => {
      const at = Math.min(1, value / largest) * (stops.length - 1);
      const [below, above] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
      below.forEach((low, channel) => (image.data[4 * place + channel] = low + (at % 1) * (above[channel] - low)));
      image.data[4 * place + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  // Where a row is: in its own words, by the texts of the ticks of cells, or by its number on the axis.
  function placeOf(row, panel) {
    if (row.w) return row.w.split("\n");
    if (panel.form !== "cells") return [`${panel.x}: ${short(row.x)}${ends(row.xl, row.xh)}`];
    return ["x", "y"].map((axis) => {
      const of = (name) => panel.spec.params.find((each) => each.name === `${axis}_${name}`).value;
      return `${panel[axis]}: ${of("texts")[of("places").indexOf(row[axis])]}`;
    });
  }

  // What is said of a row of a panel: what it is, its numbers, its arm, and the settings of the network that it stands for.
  function describeRow(row, panel, figure, networks) {
    const lines = [row.m === MEMBER ? panel.members : panel.means].filter(Boolean);
    if (panel.value) lines.push(row.v == null ? panel.absent : `${panel.value}: ${short(row.v)}${ends(row.yl, row.yh)}`);
    else if (panel.form !== "strip") lines.push(`${panel.y}: ${short(row.y)}${ends(row.yl, row.yh)}`);
    lines.push(...placeOf(row, panel));
    const arm = figure.arms[row.a];
    if (arm.name) lines.push(figure.armTitle ? `${figure.armTitle}: ${arm.name}` : arm.name);
    if (networks.length === 1) {
      const [network] = networks;
      lines.push(`run_id: ${network}`);
      const listed = rowOf.get(network);
      if (listed) {
        for (const [name, column] of settingsOf.get(listed.closest("table"))) {
          lines.push(`${name}: ${listed.cells[column].textContent}`);
        }
      }
    }
    return lines;
  }

  function expand(columns) {
    const names = Object.keys(columns);
    return columns.m.map((_, place) => {
      const row = { o: place };
      for (const name of names) row[name] = columns[name][place];
      return row;
    });
  }

  const config = {
    aria: false, // the panel says in words what it shows, and its values are in a table below
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor", tickColor: "currentColor",
      gridColor: "currentColor", gridOpacity: 0.12, titleFontWeight: 400, titleFontSize: 12, labelFontSize: 11,
      labelLimit: 170, titleLimit: 330, tickCount: 5,
    },
    legend: { labelColor: "currentColor", titleColor: "currentColor", titleFontWeight: 400 },
  };

  // One panel: its drawing, made when it is first scrolled to, and how it answers to pointer and keyboard.
  class View {
    constructor(panel, figure) {
      this.panel = panel;
      this.figure = figure;
      this.hidden = figure.hidden;
      this.rows = [];
      // Of the network that the panel is of, or of any row, Enter selects.
      this.isPlane = panel.form === "cells" || panel.form === "matrix";
      const axes = [panel.value || panel.y, panel.x].filter(Boolean).join(" against ");
      const steps = { cells: "cell to cell", matrix: "cell to cell", graph: "module to module" }[panel.form] ?? "network to network";
      const words = `${[panel.title, axes].filter(Boolean).join(": ")}. Arrow keys go from ${steps}`;
      this.box = make("div", {
        class: "view", tabindex: "0", role: "application",
        "aria-label": panel.matrix && panel.network === null ? `${words}.` : `${words}, Enter selects.`,
      });
      this.box.style.minHeight = `${Math.round(60 + 200 * panel.ratio)}px`; // until it is drawn, about its room
      this.brush = make("div", { class: "brush", hidden: "" });
      this.box.append(this.brush);
      new IntersectionObserver((entries, observer) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        observer.disconnect();
        this.draw();
      }, { rootMargin: "400px" }).observe(this.box);
      this.listen();
    }

    get size() {
      const width = Math.max(200, this.box.clientWidth);
      return [width, Math.round(60 + this.panel.ratio * Math.min(width, 330))];
    }

    async draw() {
      const { panel } = this;
      this.rows = expand(panel.rows);
      const [width, height] = this.size;
      const spec = vegaLite.compile({ ...panel.spec, width, height, config }, { logger: vega.logger(vega.Error) }).spec;
      this.view = new vega.View(vega.parse(spec), { renderer: "svg", container: this.box.appendChild(make("div")) });
      if (!panel.matrix) this.view.data("rows", this.rows);
      await this.follow();
      this.box.classList.add("drawn");
      new ResizeObserver(() => {
        const [newWidth, newHeight] = this.size;
        if (newWidth !== this.view.width()) this.view.width(newWidth).height(newHeight).runAsync();
      }).observe(this.box);
    }

    // Pass on what is shown and selected.
    follow() {
      if (!this.view) return null;
      const networks = {};
      data.networks.forEach((network, place) => { if (picked.has(network)) networks[place] = true; });
      return this.view
        .signal("seeds", shown.seeds).signal("intervals", shown.intervals)
        .signal("hidden", { ...this.hidden })
        .signal("image", this.panel.matrix ? matrixImage(this.panel.matrix, dark.matches) : "")
        .signal("picked", picked.size ? networks : null).runAsync();
    }

    place(row) {
      const [left, top] = this.view.origin();
      const padding = this.view.padding();
      return [
        this.view.scale("x")(row.x) + left + padding.left,
        this.view.scale("y")(row.y) + top + padding.top,
      ];
    }

    visible(row) {
      if (this.hidden[row.a] || row.m === GUIDE) return false;
      return row.m !== MEMBER || (shown.seeds && this.panel.form !== "cells");
    }

    closest(x, y, limit, counts) {
      let [found, least] = [null, limit ** 2];
      for (const row of this.rows) {
        if (!this.visible(row) || !counts(row)) continue;
        const [across, up] = this.place(row);
        const apart = (across - x) ** 2 + (up - y) ** 2;
        if (apart < least) [found, least] = [row, apart];
      }
      return found;
    }

    // The row that the pointer is on: a mark, or of a plane the cell or place about it, if no mark is as near.
    nearest(x, y) {
      const { form, matrix } = this.panel;
      if (matrix) {
        const [left, top] = this.view.origin();
        const padding = this.view.padding();
        const across = Math.floor(this.view.scale("x").invert(x - left - padding.left));
        const down = Math.floor(this.view.scale("y").invert(y - top - padding.top));
        return this.cellAt(across, down);
      }
      if (form === "graph") return this.closest(x, y, 30, () => true);
      if (form === "regions") {
        return this.closest(x, y, 8, (row) => row.m === MEMBER) ?? this.closest(x, y, 40, (row) => row.m !== MEMBER);
      }
      if (form !== "cells") return this.closest(x, y, 14, () => true);
      const [wide, high] = ["x", "y"].map((axis) => Math.abs(this.view.scale(axis)(1) - this.view.scale(axis)(0)));
      return this.closest(x, y, Infinity, (row) => {
        const [across, up] = this.place(row);
        return Math.abs(across - x) <= wide / 2 && Math.abs(up - y) <= high / 2;
      });
    }

    cellAt(across, down) {
      const { matrix } = this.panel;
      const inside = across >= 0 && across < matrix.columns.length && down >= 0 && down < matrix.rows.length;
      return inside ? matrixCell(matrix, down * matrix.columns.length + across) : null;
    }

    point(row) {
      this.view.signal("hover", row ? row.o : -1).runAsync();
      tip.hidden = !row;
      if (!row) return;
      const lines = describeRow(row, this.panel, this.figure, this.networksOf(row));
      tip.replaceChildren(...lines.map((line) => make("div", {}, line)));
      const [x, y] = this.place(row);
      const box = this.box.getBoundingClientRect();
      const left = Math.min(box.left + x + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
      tip.style.left = `${Math.max(4, left) + scrollX}px`;
      const below = box.top + y + 14;
      const fits = below + tip.offsetHeight < innerHeight - 6;
      tip.style.top = `${(fits ? below : box.top + y - tip.offsetHeight - 10) + scrollY}px`;
    }

    // The networks that a row stands for: itself, or those that a mean is over where its place tells them.
    networksOf(row) {
      if (this.panel.network !== null) return [data.networks[this.panel.network]];
      if (!row.m) return row.n === null ? [] : [data.networks[row.n]];
      const same = {
        band: (each) => each.x === row.x,
        paths: (each) => each.x === row.x,
        strip: (each) => Math.abs(each.y - row.y) < 0.5,
        cells: (each) => each.x === row.x && each.y === row.y,
        front: () => false,
        steps: () => false,
        regions: () => false,
        matrix: () => false,
        graph: () => false,
      }[this.panel.form];
      const members = this.rows.filter((each) => !each.m && each.a === row.a && each.n !== null && same(each));
      return members.map((each) => data.networks[each.n]);
    }

    listen() {
      const at = (event) => {
        const box = this.box.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      let start = null;
      this.box.addEventListener("pointermove", (event) => {
        if (!this.view) return;
        const [x, y] = at(event);
        if (!start) return this.point(this.nearest(x, y));
        const [left, top] = [Math.min(x, start[0]), Math.min(y, start[1])];
        const [width, height] = [Math.abs(x - start[0]), Math.abs(y - start[1])];
        this.brush.hidden = width + height < 8;
        Object.assign(this.brush.style, {
          left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`,
        });
      });
      this.box.addEventListener("pointerdown", (event) => {
        if (!this.view || this.panel.network !== null || event.button !== 0 || event.pointerType === "touch") return;
        start = at(event);
        this.box.setPointerCapture(event.pointerId);
      });
      this.box.addEventListener("pointerup", (event) => {
        if (!start || this.brush.hidden) return void (start = null);
        const [x, y] = at(event);
        const [left, right] = [Math.min(x, start[0]), Math.max(x, start[0])];
        const [top, bottom] = [Math.min(y, start[1]), Math.max(y, start[1])];
        const inside = this.rows.filter((row) => {
          if (row.m || row.n === null || this.hidden[row.a]) return false;
          const [across, up] = this.place(row);
          return across >= left && across <= right && up >= top && up <= bottom;
        });
        start = null;
        this.brush.hidden = true;
        this.brushed = true; // so that the click that follows selects nothing else
        pick(inside.map((row) => data.networks[row.n]), event.shiftKey);
      });
      this.box.addEventListener("click", (event) => {
        if (!this.view || this.brushed) return void (this.brushed = false);
        const row = this.nearest(...at(event));
        if (row) this.point(row);
        pick(row ? this.networksOf(row) : [], event.shiftKey);
      });
      this.box.addEventListener("pointerleave", () => this.view && this.point(null));
      this.box.addEventListener("blur", () => this.view && this.point(null));
      this.box.addEventListener("keydown", (event) => this.press(event));
    }

    // The cell beside another as they are drawn; null at the edge, and where there is none.
    beside(row, across, down) {
      const [first, last] = this.view.scale("y").domain();
      const [x, y] = [row.x + across, row.y + (first > last ? down : -down)];
      if (this.panel.matrix) return this.cellAt(Math.floor(x), Math.floor(y));
      return this.rows.find((each) => this.visible(each) && Math.hypot(each.x - x, each.y - y) < 0.1) ?? null;
    }

    // Where an arrow key leads to: beside a cell; else to the next mark from left to right, and to the first after the last.
    next(here, across, down) {
      if (this.isPlane && here) return this.beside(here, across, down);
      if (this.panel.matrix) return this.cellAt(0, 0);
      const order = this.rows.filter((row) => this.visible(row)).sort((one, other) => one.x - other.x || one.y - other.y);
      const place = order.indexOf(here) + across + down;
      return order.at(here || place >= 0 ? place % order.length : -1) ?? null;
    }

    press(event) {
      if (!this.view) return;
      const { matrix } = this.panel;
      const hover = this.view.signal("hover");
      const here = hover < 0 ? null : matrix ? matrixCell(matrix, hover) : this.rows[hover];
      const arrows = { ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1] };
      if (event.key in arrows) {
        event.preventDefault();
        const found = this.next(here, ...arrows[event.key]);
        if (found) this.point(found);
      } else if (event.key === "Enter" && here) {
        pick(this.networksOf(here), event.shiftKey);
      } else if (event.key === "Escape") {
        this.point(null);
      }
    }
  }

  function swatch(arm, place) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const line = document.createElementNS(space, "path");
    const mark = document.createElementNS(space, "path");
    const set = (element, attributes) =>
      Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    set(svg, { viewBox: "0 0 34 12", width: 34, height: 12, "aria-hidden": "true" });
    set(line, { d: "M1 6H33", "stroke-width": 1.8, "stroke-dasharray": arm.dash.join(" "), stroke: `var(--arm-${place})` });
    set(mark, { d: arm.shape, transform: "translate(17 6) scale(4.2)", fill: `var(--arm-${place})` });
    const area = document.createElementNS(space, "path");
    set(area, { d: "M1 1H33V11H1Z", fill: `var(--arm-${place})` });
    if (arm.swatch === "mark") set(mark, { stroke: "currentColor", "stroke-width": 0.2 });
    svg.append(...({ area: [area], line: [line], mark: [mark] }[arm.swatch] ?? [line, mark]));
    return svg;
  }

  function legendOf(figure, redraw) {
    const legend = make("div", { class: "legend", role: "group", "aria-label": figure.armTitle || "Arms" });
    if (figure.armTitle) legend.append(make("span", {}, `${figure.armTitle}:`));
    figure.arms.forEach((arm, place) => {
      const key = make("button", { type: "button", "aria-pressed": "true" }, swatch(arm, place), make("span", {}, arm.name));
      key.addEventListener("click", () => {
        if (figure.hidden[place]) delete figure.hidden[place];
        else figure.hidden[place] = true;
        key.setAttribute("aria-pressed", String(!figure.hidden[place]));
        redraw();
      });
      legend.append(key);
    });
    return legend;
  }

  // A matrix with its headings, for readers who do not see it.
  function matrixTable({ heading, title, value, matrix: { values, rows, columns } }) {
    const head = make("tr", {}, make("td"), ...columns.map((name) => make("th", { scope: "col" }, name)));
    const lines = rows.map((name, down) => {
      const own = values.slice(down * columns.length, (down + 1) * columns.length);
      return make("tr", {}, make("th", { scope: "row" }, name), ...own.map((each) => make("td", { class: "number" }, short(each))));
    });
    const caption = make("caption", {}, make("span", {}, `${[heading, title].filter(Boolean).join(". ")}. ${value}.`));
    return make("table", { class: "matrix" }, caption, make("thead", {}, head), make("tbody", {}, ...lines));
  }

  // What colours mean, from 0 on: a bar for each map of colours, as wide as its words.
  function colourBars(figure) {
    const bars = figure.bars.map(({ title, colours }) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      const paint = () => (bar.style.background = `linear-gradient(to right, ${colours[dark.matches ? "dark" : "light"].join(", ")})`);
      paint();
      dark.addEventListener("change", paint);
      return make("span", {}, `${title}: 0 `, bar, " 1");
    });
    return make("div", { class: "bars" }, ...bars);
  }

  // All values of a figure that are no single network's, for readers who do not see it; made when it is opened.
  function valuesOf(figure) {
    const details = make("details", { class: "values" }, make("summary", {}, "Values of this figure as a table"));
    details.addEventListener("toggle", () => {
      if (details.childElementCount > 1) return;
      const headings = ["panel", figure.armTitle || "arm", "place", "value", "low", "high"];
      const table = make("table", {}, make("thead", {}, make("tr", {}, ...headings.map((each) => make("th", { scope: "col" }, each)))));
      const body = table.appendChild(make("tbody"));
      const matrices = figure.panels.filter((panel) => panel.matrix);
      for (const panel of figure.panels.filter((each) => !each.matrix)) {
        const named = panel.title || panel.value || panel.y;
        for (const row of expand(panel.rows).filter((each) => each.m !== MEMBER && each.m !== GUIDE)) {
          const interval = panel.form === "strip" ? [row.xl, row.xh] : [row.yl, row.yh];
          const value = panel.value ? row.v : panel.form === "strip" ? row.x : row.y;
          const texts = [named, figure.arms[row.a].name, placeOf(row, panel).join(", "), value, ...interval];
          body.append(make("tr", {}, ...texts.map((text) => make("td", {}, typeof text === "number" ? short(text) : text ?? "-"))));
        }
      }
      for (const each of matrices) details.append(make("div", { class: "table" }, matrixTable(each)));
      if (!body.rows.length) return;
      details.append(make("div", { class: "table" }, table));
      interactiveTable(table);
    });
    return details;
  }

  function interactiveFigure(element) {
    const figure = data.figures[element.id];
    figure.hidden = {};
    const own = figure.panels.map((panel) => new View(panel, figure));
    views.push(...own);
    const panels = make("div", { class: "panels" }, ...own.flatMap((view, place) => [
      ...(view.panel.heading ? [make("p", { class: "heading" }, view.panel.heading)] : []),
      make("div", { class: figure.block && place % figure.block === 0 ? "panel first" : "panel" }, ...(view.panel.title ? [make("p", { class: "title" }, view.panel.title)] : []), view.box),
    ]));
    if (own.length === 1) panels.classList.add("single");
    if (figure.columns) {
      panels.classList.add("rows");
      panels.style.setProperty("--columns", figure.columns);
    }
    const chart = make("div", { class: figure.onWhite ? "chart white" : "chart" }, panels);
    if (figure.legend) chart.append(legendOf(figure, () => own.forEach((view) => view.follow())));
    if (figure.bars.length) chart.append(colourBars(figure));
    if (figure.note) chart.append(make("p", { class: "note" }, figure.note));
    const paint = () => figure.arms.forEach((arm, place) => {
      chart.style.setProperty(`--arm-${place}`, arm.colour[dark.matches && !figure.onWhite ? "dark" : "light"]);
    });
    paint();
    dark.addEventListener("change", () => (paint(), own.forEach((view) => view.follow())));
    element.querySelector(".drawing").after(chart);
    element.append(valuesOf(figure));
    element.classList.add("interactive");
  }

  function toolbar() {
    const tools = document.querySelector(".tools");
    if (!tools) return;
    tools.hidden = false;
    tools.addEventListener("change", (event) => {
      const name = event.target.dataset.show;
      if (name === "printed") document.body.classList.toggle("printed", event.target.checked);
      else shown[name] = event.target.checked;
      views.forEach((view) => view.follow());
    });
  }

  // ---- The page ----

  // Parts that are folded open where a link leads to them, and all of them on paper.
  function folds() {
    const open = () => {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target) return;
      for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
      target.scrollIntoView();
    };
    addEventListener("hashchange", open);
    open();
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open]):not(.values)")];
      closed.forEach((part) => (part.open = true));
    });
    addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
  }

  document.querySelectorAll("main table").forEach(interactiveTable);
  showSelection();
  document.body.append(tip);
  document.querySelectorAll("figure").forEach((figure) => figure.id in data.figures && interactiveFigure(figure));
  followers.push(() => views.forEach((view) => view.follow()));
  toolbar();
  folds();
})();
