// The week grid's arithmetic: rules to minutes and back.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const file = fileURLToPath(new URL("../../backend/static/week.js", import.meta.url));
const holder = { exports: {} };
new Function("module", readFileSync(file, "utf8"))(holder);
const week = holder.exports;

const all = week.days;
const cases = [
  // Stored rules, and what the grid makes of them.
  [[], []],
  [[{ days: ["mon", "tue"], start: "08:00", end: "18:00" }]],
  [[{ days: ["mon"], start: "08:30", end: "12:15" }, { days: ["mon"], start: "14:00", end: "18:00" }]],
  // Over midnight: of the day on which it starts; also over the week's end.
  [[{ days: ["fri"], start: "22:00", end: "02:00" }]],
  [[{ days: ["sun"], start: "23:00", end: "01:00" }]],
  [[{ days: ["tue"], start: "18:00", end: "00:00" }]],
  [[{ days: ["tue"], start: "18:00", end: "24:00" }], [{ days: ["tue"], start: "18:00", end: "00:00" }]],
  // Whole days, however they are written.
  [[{ days: ["sat"], start: "00:00", end: "00:00" }], [{ days: ["sat"], start: "00:00", end: "24:00" }]],
  [[{ days: all, start: "00:00", end: "24:00" }]],
  [[{ days: ["mon", "tue"], start: "00:00", end: "24:00" }]],
  // 24 hours from the afternoon are cut at midnight.
  [[{ days: ["mon"], start: "15:00", end: "15:00" }],
    [{ days: ["mon"], start: "15:00", end: "00:00" }, { days: ["tue"], start: "00:00", end: "15:00" }]],
  // Overlaps are one.
  [[{ days: ["wed"], start: "08:00", end: "12:00" }, { days: ["wed"], start: "11:00", end: "13:00" }],
    [{ days: ["wed"], start: "08:00", end: "13:00" }]],
];
for (const [rules, expected = rules] of cases) {
  assert.deepEqual(week.fromMinutes(week.toMinutes(rules)), expected);
}

// Whatever is painted comes back the same.
let seed = 1;
const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor((seed / 2147483648) * n); };
for (let round = 0; round < 300; round += 1) {
  const on = new Uint8Array(week.week);
  for (let i = random(12); i > 0; i -= 1) {
    const start = random(week.week);
    for (let m = random(3000); m >= 0; m -= 1) on[(start + m) % week.week] = 1;
  }
  assert.deepEqual(week.toMinutes(week.fromMinutes(on)), on);
}
console.log("week: all rules come back");
