// A week as a grid of hours, and the rules that it stands for.
"use strict";

/**
 * Pure: rules to the minutes of a week and back. A week is 7 * 1440 minutes
 * from Monday 00:00, each on or off.
 */
const weekRules = {
  days: ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
  day: 1440,
  week: 7 * 1440,

  minute(text) {
    const parts = /^(\d{1,2}):(\d{2})(?::\d{2})?$/.exec(text ?? "");
    return parts ? Number(parts[1]) * 60 + Number(parts[2]) : null;
  },

  clock(minute) {
    return `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
  },

  /** A rule whose end is not after its start runs over midnight. */
  toMinutes(rules) {
    const on = new Uint8Array(weekRules.week);
    for (const rule of rules ?? []) {
      const start = weekRules.minute(rule.start);
      let end = weekRules.minute(rule.end);
      if (start === null || end === null) continue;
      if (end <= start) end += weekRules.day;
      for (const name of rule.days ?? []) {
        const day = weekRules.days.indexOf(String(name).toLowerCase());
        if (day < 0) continue;
        for (let m = start; m < end; m += 1) on[(day * weekRules.day + m) % weekRules.week] = 1;
      }
    }
    return on;
  },

  /** The fewest rules that say the same, days with equal hours in one. */
  fromMinutes(on) {
    const { day, week, days, clock } = weekRules;
    const pieces = new Map();
    const add = (at, start, end) => {
      const key = `${start}-${end}`;
      if (!pieces.has(key)) pieces.set(key, { days: new Set(), start, end });
      pieces.get(key).days.add(Math.floor(at / day) % 7);
    };
    const first = on.findIndex((value, m) => value && !on[(m + week - 1) % week]);
    if (first < 0) {
      if (on[0]) for (let d = 0; d < 7; d += 1) add(d * day, "00:00", "24:00");
    } else {
      for (let m = first; m < first + week;) {
        if (!on[m % week]) { m += 1; continue; }
        let end = m;
        while (end < first + week && on[end % week]) end += 1;
        while (m < end) {
          const start = m % day;
          const midnight = m - start + day;
          // Less than a day, over midnight: one rule of the day on which it
          // starts. Anything longer is cut at midnight.
          const over = end > midnight && end - m < day;
          const stop = over ? end : Math.min(end, midnight);
          add(m, clock(start), stop % day === 0 ? (start === 0 ? "24:00" : "00:00") : clock(stop % day));
          m = stop;
        }
      }
    }
    return [...pieces.values()]
      .sort((a, b) => Math.min(...a.days) - Math.min(...b.days) || a.start.localeCompare(b.start))
      .map((piece) => ({ days: [...piece.days].sort().map((d) => days[d]), start: piece.start, end: piece.end }));
  },
};

if (typeof module !== "undefined") module.exports = weekRules;

/** The grid of a page. `changed` is called after each change by hand. */
class WeekGrid {
  constructor(table, changed) {
    this.table = table;
    this.changed = changed;
    this.on = new Uint8Array(weekRules.week);
    this.rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
    this.at = [0, 8];
    this.painting = null;
    this.from = null;
    this.rows.flat().forEach((cell) => { cell.tabIndex = -1; });
    this.draw();
    table.addEventListener("keydown", (event) => this.key(event));
    table.addEventListener("pointerdown", (event) => this.down(event));
    table.addEventListener("pointermove", (event) => this.move(event));
    table.addEventListener("click", (event) => this.tap(event));
    for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { this.from = null; });
  }

  set(on) {
    this.on = on;
    this.draw();
  }

  minutesOn(day, hour) {
    const start = day * weekRules.day + hour * 60;
    let count = 0;
    for (let m = start; m < start + 60; m += 1) count += this.on[m];
    return count;
  }

  draw() {
    this.rows.forEach((cells, day) => cells.forEach((cell, hour) => {
      const count = this.minutesOn(day, hour);
      cell.classList.toggle("on", count === 60);
      cell.classList.toggle("part", count > 0 && count < 60);
      cell.setAttribute("aria-selected", count > 0);
      cell.setAttribute("aria-label", `${this.table.tBodies[0].rows[day].cells[0].textContent} ${weekRules.clock(hour * 60)}`);
      cell.tabIndex = day === this.at[0] && hour === this.at[1] ? 0 : -1;
    }));
  }

  /** Sets every hour between two cells. */
  paint([day1, hour1], [day2, hour2], value) {
    for (let day = Math.min(day1, day2); day <= Math.max(day1, day2); day += 1) {
      const start = day * weekRules.day + Math.min(hour1, hour2) * 60;
      this.on.fill(value, start, day * weekRules.day + (Math.max(hour1, hour2) + 1) * 60);
    }
    this.draw();
    this.changed();
  }

  place(cell) {
    const day = this.rows.findIndex((cells) => cells.includes(cell));
    return day < 0 ? null : [day, this.rows[day].indexOf(cell)];
  }

  value([day, hour]) { return this.minutesOn(day, hour) === 60 ? 0 : 1; }

  down(event) {
    // A finger scrolls; its tap is a click.
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    const at = this.place(event.target.closest("td"));
    if (!at) return;
    event.preventDefault();
    this.from = at;
    this.painting = this.value(at);
    this.before = this.on.slice();
    this.go(at);
    this.paint(at, at, this.painting);
  }

  move(event) {
    if (!this.from || event.buttons !== 1) return;
    const at = this.place(document.elementFromPoint(event.clientX, event.clientY)?.closest("td"));
    if (!at) return;
    this.on = this.before.slice();
    this.paint(this.from, at, this.painting);
  }

  tap(event) {
    if (event.pointerType === "mouse") return;
    const at = this.place(event.target.closest("td"));
    if (!at) return;
    this.go(at);
    this.paint(at, at, this.value(at));
  }

  go(at) {
    this.at = at;
    this.draw();
    this.rows[at[0]][at[1]].focus();
  }

  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const [day, hour] = this.at;
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.paint(this.at, this.at, this.value(this.at));
    } else if (steps[event.key]) {
      event.preventDefault();
      const to = [Math.min(6, Math.max(0, day + steps[event.key][0])), Math.min(23, Math.max(0, hour + steps[event.key][1]))];
      // With Shift the next hour becomes as this one.
      if (event.shiftKey) this.paint(to, to, this.minutesOn(day, hour) > 0 ? 1 : 0);
      this.go(to);
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      this.go([day, event.key === "Home" ? 0 : 23]);
    }
  }
}
