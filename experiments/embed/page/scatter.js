// Points on a canvas that can be zoomed, dragged and pointed at.
//
// new Scatter(canvas, {onPoint, onChoose, onDraw})   onPoint(point or null), onChoose(point or null): points by number;
//                             onDraw(): points may have other places
// scatter.move(places)        x, y, x, y .. of 0 .. 1, NaN: nowhere; the points travel there, unless the reader wants
//                             no motion
// scatter.paint(look)         look: {colour(point, theme), shape(point), bright(point)}; the others fade
// scatter.mark(point)         ring a point; null: none
// scatter.zoom(factor, at), scatter.reset()
// scatter.reveal(point)       drag a point that is beyond the canvas to its middle
// scatter.find(point)         [x, y] on the canvas, null where it is nowhere
// drawPicture(scatter, {title, entries})     a canvas for a file: the map as it is shown, and its legend
// shapePath(k)                the outline of shape k, 2 wide around 0, as in the attribute `d` of a path

import { palette } from "./colours.js";
import { shorten } from "./tokens.js";

const SHAPES = [
  "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
  "M-.9-.9H.9V.9H-.9Z",
  "M0-1.2L1.15.9H-1.15Z",
  "M0-1.3L1.3 0L0 1.3L-1.3 0Z",
];
const TRAVEL = 400; // milliseconds
const REACH = { mouse: 12, pen: 16, touch: 24 }; // pixels between a pointer and its point at most
const FADED = 0.1;
const MARGIN = 16;
const [LEAST_ZOOM, MOST_ZOOM] = [0.5, 60];
const still = matchMedia("(prefers-reduced-motion: reduce)");

export function shapePath(k) {
  return SHAPES[k % SHAPES.length];
}

const outlines = SHAPES.map((shape) => new Path2D(shape));

export class Scatter {
  constructor(canvas, { onPoint, onChoose, onDraw }) {
    Object.assign(this, { canvas, onPoint, onChoose, onDraw, places: new Float32Array(), marked: null });
    this.view = { zoom: 1, x: 0, y: 0 };
    this.look = { colour: () => "#000000", shape: () => 0, bright: () => true };
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  move(places) {
    const from = this.places.length === places.length && !still.matches ? this.places.slice() : places;
    const start = performance.now();
    const step = (now) => {
      const part = from === places ? 1 : Math.min(Math.max((now - start) / TRAVEL, 0), 1);
      const eased = part * part * (3 - 2 * part);
      const between = (to, i) => (Number.isNaN(from[i]) ? to : from[i] + (to - from[i]) * eased);
      this.places = part === 1 ? places : places.map(between);
      this.draw();
      this.frame = part === 1 ? null : requestAnimationFrame(step);
    };
    cancelAnimationFrame(this.frame);
    step(start);
  }

  paint(look) {
    this.look = look;
    this.draw();
  }

  mark(point) {
    this.marked = point;
    this.draw();
  }

  reset() {
    this.view = { zoom: 1, x: 0, y: 0 };
    this.draw();
  }

  // `at`, a place on the canvas, stays where it is.
  zoom(factor, [x, y] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const { view, canvas } = this;
    const zoom = Math.min(Math.max(view.zoom * factor, LEAST_ZOOM), MOST_ZOOM);
    const stay = (offset, middle) => offset + (middle - offset) * (1 - zoom / view.zoom);
    const [left, top] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
    this.view = { zoom, x: stay(view.x, left), y: stay(view.y, top) };
    this.draw();
  }

  drag(x, y) {
    Object.assign(this.view, { x: this.view.x + x, y: this.view.y + y });
    this.draw();
  }

  reveal(point) {
    const place = this.find(point);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!place || (place[0] >= 0 && place[0] <= width && place[1] >= 0 && place[1] <= height)) return;
    this.drag(width / 2 - place[0], height / 2 - place[1]);
  }

  find(point, width = this.canvas.clientWidth, height = this.canvas.clientHeight) {
    const side = (Math.min(width, height) - 2 * MARGIN) * this.view.zoom;
    const [x, y] = [this.places[2 * point], this.places[2 * point + 1]];
    if (Number.isNaN(x)) return null;
    return [width / 2 + this.view.x + (x - 0.5) * side, height / 2 + this.view.y + (0.5 - y) * side]; // y upwards
  }

  get count() {
    return this.places.length / 2;
  }

  nearest([x, y], reach) {
    let [best, least] = [null, reach];
    for (let point = 0; point < this.count; point += 1) {
      const place = this.look.bright(point) && this.find(point);
      const distance = place ? Math.hypot(place[0] - x, place[1] - y) : Infinity;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  draw() {
    const { canvas } = this;
    const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio];
    const size = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.drawPoints(pen, width, height);
    this.onDraw();
  }

  // In the order of the texts, so that no class covers the others; faded ones lie below.
  drawPoints(pen, width, height, theme) {
    const { look, view } = this;
    const dots = (0.15 * Math.min(width, height)) / Math.sqrt(this.count || 1);
    const radius = Math.min(Math.max(dots, 2.5), 6) * Math.min(Math.max(view.zoom, 1) ** 0.3, 2);
    const order = Array.from({ length: this.count }, (_, point) => point);
    const bright = new Set(order.filter((point) => look.bright(point)));
    for (const point of [...order.filter((each) => !bright.has(each)), ...bright]) {
      const place = this.find(point, width, height);
      if (!place) continue;
      pen.globalAlpha = bright.has(point) ? 0.9 : FADED;
      drawShape(pen, place, radius, look.shape(point), look.colour(point, theme), palette(theme).ground);
    }
    pen.globalAlpha = 1;
    const ring = this.marked === null ? null : this.find(this.marked, width, height);
    if (!ring) return;
    pen.lineWidth = 2;
    pen.strokeStyle = palette(theme).ink;
    pen.beginPath();
    pen.arc(...ring, radius + 4, 0, 2 * Math.PI);
    pen.stroke();
  }

  // One pointer drags, two zoom; a short touch or click chooses.
  listen() {
    const { canvas } = this;
    const down = new Map(); // pointer -> where it is
    let path = 0; // pixels since the first pointer went down
    const placeOf = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (down.size === 0) path = 0;
      down.set(event.pointerId, placeOf(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      const [now, before] = [placeOf(event), down.get(event.pointerId)];
      if (!before) return this.onPoint(this.nearest(now, REACH[event.pointerType]));
      const other = [...down].find(([pointer]) => pointer !== event.pointerId)?.[1];
      const distance = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      path += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (other) this.zoom(distance(now) / distance(before), other);
      else this.drag(now[0] - before[0], now[1] - before[1]);
      down.set(event.pointerId, now);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (down.size === 1 && path < 5) this.onChoose(this.nearest(placeOf(event), REACH[event.pointerType]));
      down.delete(event.pointerId);
    });
    canvas.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
    // A finger leaves when it is lifted: what it chose stays to be read.
    canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.onPoint(null));
    const turn = (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), placeOf(event));
    };
    canvas.addEventListener("wheel", turn, { passive: false });
  }
}

function drawShape(pen, [x, y], radius, shape, colour, edge) {
  pen.save();
  pen.translate(x, y);
  pen.scale(radius, radius);
  pen.fillStyle = colour;
  pen.strokeStyle = edge;
  pen.lineWidth = 0.7 / radius;
  pen.fill(outlines[shape % SHAPES.length]);
  pen.stroke(outlines[shape % SHAPES.length]);
  pen.restore();
}

export function drawPicture(scatter, { title, entries }) {
  const { canvas } = scatter;
  const [width, height, legend, top, row] = [canvas.clientWidth, canvas.clientHeight, 240, 40, 20];
  const colours = palette("light");
  const picture = document.createElement("canvas");
  const tall = Math.max(height + top, top + row * (entries.length + 1));
  Object.assign(picture, { width: 2 * (width + legend), height: 2 * tall });
  const pen = picture.getContext("2d");
  pen.scale(2, 2);
  pen.fillStyle = colours.ground;
  pen.fillRect(0, 0, width + legend, tall);
  pen.textBaseline = "middle";
  pen.font = "600 15px system-ui, sans-serif";
  pen.fillStyle = colours.ink;
  pen.fillText(title, 12, top / 2, width + legend - 24);
  pen.font = "13px system-ui, sans-serif";
  entries.forEach(({ name, colour, shape }, at) => {
    const y = top + row * (at + 0.5);
    drawShape(pen, [width + 16, y], 5, shape, colour("light"), colours.ground);
    pen.fillStyle = colours.ink;
    pen.fillText(shorten(name, 60), width + 28, y, legend - 36);
  });
  pen.translate(0, top);
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.clip();
  scatter.drawPoints(pen, width, height, "light");
  return picture;
}
