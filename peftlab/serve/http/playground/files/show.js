/* Numbers and facts in words. */

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat("en");
const exact = (digits) => new Intl.NumberFormat("en", { minimumSignificantDigits: digits, maximumSignificantDigits: digits });
const three = exact(3);

export const count = (number) => plain.format(number);

export function duration(milliseconds) {
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 99_950) return `${three.format(milliseconds / 1000)} s`;
  return `${plain.format(Math.round(milliseconds / 1000))} s`;
}

export function rate(tokens, milliseconds) {
  return tokens && milliseconds ? three.format((1000 * tokens) / milliseconds) : "–";
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes / 1024;
  while (value >= 1023.5 && units.length > 1) {
    value /= 1024;
    units.shift();
  }
  return `${new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value)} ${units[0]}`;
}

export function facts({ base, method, task, trainable, bytes, loaded }) {
  if (base) return "the model itself, without an adaptation";
  return [
    method,
    task,
    Number.isFinite(trainable) && `${compact.format(trainable)} trained`,
    Number.isFinite(bytes) && size(bytes),
    loaded && "in memory",
  ].filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join("\u00a0· ");
}
