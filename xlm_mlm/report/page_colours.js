// One ramp for each quantity; all of them get evenly brighter (viridis, cividis, and magma
// without its ends, which would pass for the page's ground).

const hexes = (text) => text.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const RAMPS = {
  pass: hexes("440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"),
  probability: hexes("00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838"),
  entropy: hexes("1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3"),
};

// The colour at a share from 0 to 1 of a ramp, as three bytes.
function colourAt(ramp, share) {
  const stops = RAMPS[ramp];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const below = Math.min(Math.floor(at), stops.length - 2);
  return stops[below].map((low, c) => Math.round(low + (at - below) * (stops[below + 1][c] - low)));
}

const shades = new Map();

// The same as the style sheet wants it, with the ink that reads best on it.
function shade(ramp, share) {
  const key = `${ramp} ${share}`;
  if (!shades.has(key)) {
    const colour = colourAt(ramp, share);
    shades.set(key, { ground: css(colour), ink: inkOn(colour) });
  }
  return shades.get(key);
}

const css = (colour) => `rgb(${colour.join(" ")})`;

function luminance(colour) {
  const [r, g, b] = colour.map((byte) => {
    const c = byte / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// Black or white, whichever reads better: never below 4.5 to 1.
function inkOn(colour) {
  const light = luminance(colour);
  return (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000" : "#fff";
}

function drawLegend(root, ramp, low, high) {
  root.querySelector(".low").textContent = low;
  root.querySelector(".high").textContent = high;
  const stops = RAMPS[ramp].map(css).join(", ");
  root.querySelector(".ramp").style.background = `linear-gradient(to right, ${stops})`;
}
