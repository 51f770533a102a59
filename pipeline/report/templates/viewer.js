// A small WebGL2 viewer: mesh, sparse points and cameras before and after refinement.
// Reads the JSON of #scene-data; draws only when something changed.
(() => {
  "use strict";
  const root = document.getElementById("viewer");
  const source = document.getElementById("scene-data");
  if (!root || !source) return;
  const scene = JSON.parse(source.textContent);
  const canvas = root.querySelector("canvas");
  const label = root.querySelector(".viewer-label");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: false });
  if (!gl) {
    root.classList.add("no-webgl");
    root.dataset.state = "no-webgl";
    window.reportViewer = { ready: false, reason: "no WebGL 2" };
    return;
  }

  // ---- small matrix helpers, column-major as GL wants them -------------------------------
  const multiply = (a, b) => {
    const out = new Float32Array(16);
    for (let c = 0; c < 4; c++)
      for (let r = 0; r < 4; r++)
        for (let k = 0; k < 4; k++) out[c * 4 + r] += a[k * 4 + r] * b[c * 4 + k];
    return out;
  };
  const perspective = (fovy, aspect, near, far) => {
    const f = Math.min(1, aspect) / Math.tan(fovy / 2), out = new Float32Array(16);  // of the shorter side
    out[0] = f / aspect; out[5] = f;
    out[10] = (far + near) / (near - far); out[11] = -1;
    out[14] = (2 * far * near) / (near - far);
    return out;
  };
  const normalise = (v) => { const n = Math.hypot(...v) || 1; return v.map((x) => x / n); };
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];

  // ---- programs --------------------------------------------------------------------------
  const compile = (vertex, fragment) => {
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, "#version 300 es\nprecision highp float;\n" + text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    ["position", "normal", "colour", "place"].forEach((name, slot) => gl.bindAttribLocation(program, slot, name));
    gl.linkProgram(program);
    const uniforms = {};
    const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS);
    for (let i = 0; i < count; i++) {
      const name = gl.getActiveUniform(program, i).name;
      uniforms[name] = gl.getUniformLocation(program, name);
    }
    return { program, uniforms };
  };
  const meshProgram = compile(
    `in vec3 position; in vec3 normal; in vec3 colour; in vec2 place;
     uniform mat4 matrix; uniform vec3 low, size;
     out vec3 n, c; out vec2 t;
     void main() { n = normal; c = colour; t = place; gl_Position = matrix * vec4(low + position * size, 1.0); }`,
    `in vec3 n, c; in vec2 t; out vec4 pixel;
     uniform vec3 lamp, toward, up; uniform int mode; uniform bool textured; uniform sampler2D picture;
     void main() {
       vec3 own = textured ? texture(picture, t).rgb : c;
       vec3 u = normalize(n);
       if (dot(u, toward) < 0.0) u = -u;
       float light = 0.1 + 0.24 * (0.5 + 0.5 * dot(u, up)) + 0.66 * max(dot(u, lamp), 0.0);
       vec3 shade = mode == 0 ? own * (0.62 + 0.45 * light)
                  : mode == 1 ? vec3(0.81, 0.78, 0.75) * (0.16 + 0.94 * light)
                  : 0.5 + 0.5 * normalize(n);
       pixel = vec4(shade, 1.0);
     }`);
  const plainProgram = compile(
    `in vec3 position; in vec3 colour;
     uniform mat4 matrix; uniform vec3 low, size; uniform float pointSize;
     out vec3 c;
     void main() { c = colour; gl_Position = matrix * vec4(low + position * size, 1.0); gl_PointSize = pointSize; }`,
    `in vec3 c; out vec4 pixel; uniform vec4 tint;
     void main() { pixel = vec4(mix(c, tint.rgb, tint.a), 1.0); }`);

  // ---- data ------------------------------------------------------------------------------
  const bytes = (text) => Uint8Array.from(atob(text), (ch) => ch.charCodeAt(0));
  const upload = (target, data, usage = gl.STATIC_DRAW) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, data, usage);
    return buffer;
  };
  const attribute = (slot, buffer, type, normalised, stride, count = 3) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, count, type, normalised, stride, 0);
  };
  const packedArray = (part, withNormals) => {
    const vao = gl.createVertexArray();
    gl.bindVertexArray(vao);
    attribute(0, upload(gl.ARRAY_BUFFER, bytes(part.positions.data)), gl.UNSIGNED_SHORT, true, 8);
    if (withNormals) attribute(1, upload(gl.ARRAY_BUFFER, bytes(part.normals)), gl.BYTE, true, 4);
    attribute(2, upload(gl.ARRAY_BUFFER, bytes(part.colours)), gl.UNSIGNED_BYTE, true, 4);
    if (part.uv) attribute(3, upload(gl.ARRAY_BUFFER, bytes(part.uv)), gl.UNSIGNED_SHORT, true, 4, 2);
    return vao;
  };
  let mesh = null, points = null;
  if (scene.mesh) {
    mesh = { vao: packedArray(scene.mesh, true), count: scene.mesh.faces * 3, ...scene.mesh.positions };
    upload(gl.ELEMENT_ARRAY_BUFFER, bytes(scene.mesh.indices));
    gl.bindVertexArray(null);
  }
  if (scene.points && scene.points.count) {
    points = { vao: packedArray(scene.points, false), count: scene.points.count, ...scene.points.positions };
    gl.bindVertexArray(null);
  }
  const FRUSTUM_EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1];
  const lineSet = () => {
    const vao = gl.createVertexArray(), buffer = gl.createBuffer();
    gl.bindVertexArray(vao);
    attribute(0, buffer, gl.FLOAT, false, 12);
    gl.bindVertexArray(null);
    return { vao, buffer, count: 0 };
  };
  const fillFrusta = (set, cameras) => {
    const out = [];
    for (const camera of cameras)
      for (const corner of FRUSTUM_EDGES) out.push(camera[corner * 3], camera[corner * 3 + 1], camera[corner * 3 + 2]);
    gl.bindBuffer(gl.ARRAY_BUFFER, set.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(out), gl.DYNAMIC_DRAW);
    set.count = out.length / 3;
  };
  const afterSet = scene.after ? lineSet() : null;
  const beforeSet = scene.before ? lineSet() : null;
  if (afterSet) fillFrusta(afterSet, scene.after);
  // differences are far too small to see: the old cameras can be drawn further from the new ones
  const exaggerated = (factor) => {
    if (!scene.after || scene.after.length !== scene.before.length) return scene.before;
    return scene.before.map((camera, i) => camera.map((v, k) => scene.after[i][k] + factor * (v - scene.after[i][k])));
  };
  if (beforeSet) fillFrusta(beforeSet, exaggerated(1));

  // ---- state and controls ----------------------------------------------------------------
  const shown = { mesh: true, points: !mesh, after: true, before: !scene.after };
  const start = () => {
    let target = [0, 0, 0], radius = 1.0;
    if (mesh) {
      target = mesh.low.map((v, k) => v + mesh.size[k] / 2);
      radius = Math.hypot(...mesh.size) / 2;
    }
    // far enough to have most cameras in the picture, near enough to see the surface
    const cameras = scene.after || scene.before || [];
    const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
    const away = cameras.map((c) => Math.hypot(c[0] - target[0], c[1] - target[1], c[2] - target[2]));
    const wanted = away.length ? 1.9 * middle(away) : 0;
    const distance = Math.min(Math.max(radius * 3.1, wanted), radius * 7);
    // cameras mostly stand higher than what they look at: both get their share of the height
    if (cameras.length) target[1] += 0.35 * Math.max(-distance / 3, Math.min(distance / 3, middle(cameras.map((c) => c[1])) - target[1]));
    return { yaw: 0.6, pitch: 0.42, distance, target };
  };
  let view = start(), mode = 0, dirty = true, textured = false;
  const redraw = () => { if (!dirty) { dirty = true; requestAnimationFrame(draw); } };
  if (mesh && scene.mesh.texture) {  // the colours of the vertices stand in until it is decoded
    const picture = new Image();
    picture.onload = () => {
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, picture);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      textured = true;
      root.dataset.texture = "shown";
      redraw();
    };
    picture.src = scene.mesh.texture;
  }

  for (const box of root.querySelectorAll("input[data-show]")) {
    const name = box.dataset.show;
    const available = { mesh, points, after: afterSet, before: beforeSet }[name];
    if (!available) { box.closest("label").remove(); continue; }
    box.checked = shown[name];
    box.addEventListener("change", () => { shown[name] = box.checked; redraw(); });
  }
  const modes = root.querySelector("select[data-mode]");
  if (modes) {
    if (!mesh) modes.closest("label").remove();
    modes.addEventListener("change", () => { mode = Number(modes.value); redraw(); });
  }
  const slider = root.querySelector("input[data-exaggerate]");
  if (slider) {
    if (!beforeSet || !afterSet) slider.closest("label").remove();
    slider.addEventListener("input", () => {
      const factor = Math.round(10 ** Number(slider.value));
      root.querySelector("[data-factor]").textContent = "×" + factor;
      fillFrusta(beforeSet, exaggerated(factor));
      const box = root.querySelector('input[data-show="before"]');
      if (!box.checked) { box.checked = shown.before = true; }
      redraw();
    });
  }
  root.querySelector("[data-reset]").addEventListener("click", () => { view = start(); redraw(); });

  const axes = () => {
    const back = [Math.cos(view.pitch) * Math.sin(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch) * Math.cos(view.yaw)];
    const right = normalise(cross([0, 1, 0], back));
    return { back, right, up: cross(back, right) };
  };
  const turn = (dx, dy) => {
    view.yaw -= dx * 0.008;
    view.pitch = Math.max(-1.55, Math.min(1.55, view.pitch + dy * 0.008));
  };
  const pan = (dx, dy) => {
    const { right, up } = axes(), scale = (view.distance * 0.72) / Math.min(canvas.clientWidth, canvas.clientHeight);
    view.target = add(add(view.target, right, -dx * scale), up, dy * scale);
  };
  const zoom = (factor) => { view.distance = Math.max(0.05, Math.min(40, view.distance * factor)); };

  const fingers = new Map();
  let pinch = 0;
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    pinch = 0;
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!fingers.has(e.pointerId)) { if (e.pointerType === "mouse") name_at(e); return; }
    const [x, y] = fingers.get(e.pointerId);
    const dx = e.clientX - x, dy = e.clientY - y;
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()];
      const spread = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (pinch) zoom(pinch / spread);
      pinch = spread;
      pan(dx / 2, dy / 2);
    } else if (e.buttons & 2 || e.shiftKey) pan(dx, dy);
    else turn(dx, dy);
    redraw();
  });
  for (const kind of ["pointerup", "pointercancel"])
    canvas.addEventListener(kind, (e) => {
      const tapped = fingers.size === 1 && e.pointerType !== "mouse";
      fingers.delete(e.pointerId);
      pinch = 0;
      if (tapped) name_at(e);
    });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(e.deltaY * 0.0012)); redraw(); }, { passive: false });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("dblclick", () => { view = start(); redraw(); });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, -20], ArrowDown: [0, 20] }[e.key];
    if (step) turn(...step);
    else if (e.key === "+" || e.key === "=") zoom(0.9);
    else if (e.key === "-") zoom(1.1);
    else return;
    e.preventDefault();
    redraw();
  });

  let matrix = new Float32Array(16);
  const name_at = (e) => {
    const box = canvas.getBoundingClientRect(), cameras = scene.after || scene.before || [];
    let best = -1, nearest = 16;
    cameras.forEach((camera, i) => {
      const w = matrix[3] * camera[0] + matrix[7] * camera[1] + matrix[11] * camera[2] + matrix[15];
      if (w <= 0) return;
      const x = (matrix[0] * camera[0] + matrix[4] * camera[1] + matrix[8] * camera[2] + matrix[12]) / w;
      const y = (matrix[1] * camera[0] + matrix[5] * camera[1] + matrix[9] * camera[2] + matrix[13]) / w;
      const away = Math.hypot(((x + 1) / 2) * box.width - (e.clientX - box.left), ((1 - y) / 2) * box.height - (e.clientY - box.top));
      if (away < nearest) { nearest = away; best = i; }
    });
    label.hidden = best < 0;
    if (best < 0) return;
    const change = scene.change_deg ? ` · turned by ${scene.change_deg[best].toFixed(3)}°` : "";
    label.textContent = (scene.names[best] || `view ${best}`) + change;
  };

  // ---- drawing ---------------------------------------------------------------------------
  const drawLines = (set, rgb) => {
    gl.bindVertexArray(set.vao);
    gl.vertexAttrib3f(2, 0, 0, 0);
    gl.uniform3f(plainProgram.uniforms.low, 0, 0, 0);
    gl.uniform3f(plainProgram.uniforms.size, 1, 1, 1);
    gl.uniform4f(plainProgram.uniforms.tint, ...rgb, 1);
    gl.drawArrays(gl.LINES, 0, set.count);
  };
  function draw() {
    dirty = false;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const { back, right, up } = axes(), eye = add(view.target, back, view.distance);
    const look = new Float32Array([right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -dot(right, eye), -dot(up, eye), -dot(back, eye), 1]);
    matrix = multiply(perspective(0.7, width / height, view.distance * 0.02, view.distance * 4 + 20), look);
    if (mesh && shown.mesh) {
      gl.useProgram(meshProgram.program);
      const u = meshProgram.uniforms, lamp = normalise(add(add(back.map((v) => v * 0.9), right, -0.5), up, 0.65));
      gl.uniformMatrix4fv(u.matrix, false, matrix);
      gl.uniform3f(u.low, ...mesh.low); gl.uniform3f(u.size, ...mesh.size);
      gl.uniform3f(u.lamp, ...lamp); gl.uniform3f(u.toward, ...back); gl.uniform3f(u.up, 0, 1, 0);
      gl.uniform1i(u.mode, mode); gl.uniform1i(u.textured, textured ? 1 : 0);
      gl.bindVertexArray(mesh.vao);
      gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    }
    gl.useProgram(plainProgram.program);
    gl.uniformMatrix4fv(plainProgram.uniforms.matrix, false, matrix);
    if (points && shown.points) {
      gl.uniform3f(plainProgram.uniforms.low, ...points.low); gl.uniform3f(plainProgram.uniforms.size, ...points.size);
      gl.uniform4f(plainProgram.uniforms.tint, 0, 0, 0, 0);
      gl.uniform1f(plainProgram.uniforms.pointSize, 2 * ratio);
      gl.bindVertexArray(points.vao);
      gl.drawArrays(gl.POINTS, 0, points.count);
    }
    if (beforeSet && shown.before) drawLines(beforeSet, [0.85, 0.51, 0.17]);
    if (afterSet && shown.after) drawLines(afterSet, [0.23, 0.49, 0.74]);
    gl.bindVertexArray(null);
  }
  new ResizeObserver(redraw).observe(canvas);
  draw();
  root.dataset.state = "ready";
  window.reportViewer = {
    ready: true,
    faces: scene.mesh ? scene.mesh.faces : 0,
    points: scene.points ? scene.points.count : 0,
    cameras: (scene.after || scene.before || []).length,
    // a still for those who want one; also how a test sees that something is drawn
    snapshot() { draw(); return canvas.toDataURL("image/png"); },
  };
})();
