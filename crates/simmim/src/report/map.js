"use strict";
for (const figure of document.querySelectorAll(".map")) {
  const data = JSON.parse(figure.querySelector(".data").textContent);
  const numbers = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Uint16Array(bytes.buffer);
  };
  const places = numbers(data.places), classes = numbers(data.classes), count = classes.length;
  const canvas = figure.querySelector(".field > canvas"), context = canvas.getContext("2d");
  const tip = figure.querySelector(".tip"), picture = tip.querySelector("canvas"), tiles = figure.querySelector(".tiles");
  const without = 65535, gray = "#888";
  // the part of the map that is shown: its middle, and how many times it is enlarged
  let middle = [0.5, 0.5], zoom = 1, only = null, drawn = false;

  const side = () => Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94;
  const toScreen = (point) => [
    canvas.clientWidth / 2 + (places[2 * point] / 65535 - middle[0]) * side() * zoom,
    canvas.clientHeight / 2 + (places[2 * point + 1] / 65535 - middle[1]) * side() * zoom,
  ];
  const radius = () => Math.min(6, Math.max(0.9, 90 / Math.sqrt(count)) * Math.sqrt(zoom));

  const draw = () => {
    drawn = false;
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const r = radius();
    for (const faded of only === null ? [false] : [true, false]) {
      context.globalAlpha = faded ? 0.08 : 0.75;
      for (let point = 0; point < count; point++) {
        if (only !== null && (classes[point] !== only) !== faded) continue;
        const [x, y] = toScreen(point);
        if (x < -r || y < -r || x > canvas.clientWidth + r || y > canvas.clientHeight + r) continue;
        context.fillStyle = data.colors[classes[point]] || gray;
        if (r < 1.5) {
          context.fillRect(x - r, y - r, 2 * r, 2 * r);
        } else {
          context.beginPath();
          context.arc(x, y, r, 0, 2 * Math.PI);
          context.fill();
        }
      }
    }
  };
  const redraw = () => {
    if (!drawn) requestAnimationFrame(draw);
    drawn = true;
  };

  const show = (x, y) => {
    let nearest = null, least = 20;
    data.shown.forEach((point, number) => {
      const [px, py] = toScreen(point), distance = Math.hypot(px - x, py - y);
      if (distance < least && (only === null || classes[point] === only)) [nearest, least] = [number, distance];
    });
    tip.hidden = nearest === null;
    if (nearest === null) return;
    const point = data.shown[nearest], [height, width] = data.sizes[nearest], times = 3;
    [picture.width, picture.height] = [width * times, height * times];
    picture.hidden = width === 0 || !tiles;
    if (!picture.hidden) {
      const brush = picture.getContext("2d");
      brush.imageSmoothingEnabled = Math.max(width, height) > 40;
      const left = (nearest % data.columns) * data.tile, top = Math.floor(nearest / data.columns) * data.tile;
      brush.drawImage(tiles, left, top, width, height, 0, 0, width * times, height * times);
    }
    tip.querySelector("b").textContent = data.files[nearest].split(/[\/\\:]/).pop();
    tip.querySelector("span").textContent = classes[point] === without ? "" : data.names[classes[point]];
    tip.title = data.files[nearest];
    const [px, py] = toScreen(point);
    tip.style.left = `${Math.min(px + 12, canvas.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = `${Math.min(py + 12, canvas.clientHeight - tip.offsetHeight)}px`;
  };

  const enlarge = (times, x, y) => {
    const next = Math.min(400, Math.max(1, zoom * times));
    // what is under the pointer stays there
    [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2].forEach((offset, axis) => {
      middle[axis] += (offset / side()) * (1 / zoom - 1 / next);
    });
    zoom = next;
    if (zoom === 1) middle = [0.5, 0.5];
    redraw();
  };

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.offsetX, event.offsetY];
    canvas.setPointerCapture(event.pointerId);
    show(event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held === null) return show(event.offsetX, event.offsetY);
    tip.hidden = true;
    middle[0] -= (event.offsetX - held[0]) / side() / zoom;
    middle[1] -= (event.offsetY - held[1]) / side() / zoom;
    held = [event.offsetX, event.offsetY];
    redraw();
  });
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  canvas.addEventListener("dblclick", (event) => enlarge(2, event.offsetX, event.offsetY));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      tip.hidden = true;
      enlarge(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
  for (const button of figure.querySelectorAll(".classes button")) {
    button.addEventListener("click", () => {
      const number = Number(button.dataset.class);
      only = only === number ? null : number;
      for (const other of figure.querySelectorAll(".classes button")) {
        other.setAttribute("aria-pressed", String(Number(other.dataset.class) === only));
      }
      redraw();
    });
  }
  new ResizeObserver(redraw).observe(canvas);
  redraw();
}
