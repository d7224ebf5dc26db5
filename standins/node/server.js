'use strict';
// The Node stand-in: a module without business, for the platform to host. Same interface as the Python one.

const crypto = require('crypto');
const http = require('http');
const net = require('net');
const v8 = require('v8');
const vm = require('vm');

const MAX_BODY = 8 * 1024 * 1024;
const MAX_MESSAGE = 1024 * 1024;
const MAX_HELD_MB = 4096;
const MAX_BIG = 1024 * 1024 * 1024;
const PIECE = 64 * 1024;
const SHOWN = 100;
const MAX_KEY = 2048;
const MAX_TYPES = 100;
const IDEMPOTENT = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']);
const FORWARDED = ['traceparent', 'tracestate', 'baggage', 'x-request-id', 'content-type'];
const UNITS = { us: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 };

class Wrong extends Error {}

class Problem extends Error {
  constructor(status, detail, more) {
    super(detail);
    this.status = status;
    this.more = more || {};
  }
}

function duration(text) {
  const match = /^(\d+(?:\.\d*)?|\.\d+)(us|ms|s|m|h)?$/.exec(text);
  const value = match ? Number(match[1]) * UNITS[match[2] || 's'] : NaN;
  if (!(value >= 0 && value <= 3600)) {
    throw new Wrong(`'${text}' is not a duration from 0 to 1h such as 250ms or 2s`);
  }
  return value;
}

function whole(text, low, high) {
  if (/^\d{1,12}$/.test(text) && Number(text) >= low && Number(text) <= high) return Number(text);
  throw new Wrong(`'${text}' is not a whole number from ${low} to ${high}`);
}

function rate(text) {
  const value = /^\d*\.?\d+$/.test(text) ? Number(text) : -1;
  if (value >= 0 && value <= 1) return value;
  throw new Wrong(`'${text}' is not a rate from 0 to 1`);
}

// -- settings

const env = process.env;

function setting(name, read, fallback) {
  const text = env[name] || fallback;
  if (text === undefined) throw new Wrong(`${name} is not set`);
  try {
    return read(text);
  } catch (wrong) {
    throw wrong instanceof Wrong ? new Wrong(`${name}: ${wrong.message}`) : wrong;
  }
}

function settings() {
  return {
    port: setting('PORT', (text) => whole(text, 1, 65535)),
    bind: env.STANDIN_BIND || '127.0.0.1',
    slow: setting('STANDIN_SLOW', duration, '0'),
    failRate: setting('STANDIN_FAIL_RATE', rate, '0'),
    failStatus: setting('STANDIN_FAIL_STATUS', (text) => whole(text, 400, 599), '500'),
    seed: setting('STANDIN_SEED', (text) => whole(text, 0, 2 ** 31), '1'),
    readyAfter: setting('STANDIN_READY_AFTER', duration, '0'),
    crashAfter: setting('STANDIN_CRASH_AFTER', duration, '0'),
    crashCode: setting('STANDIN_CRASH_CODE', (text) => whole(text, 0, 255), '1'),
    memoryMb: setting('STANDIN_MEMORY_MB', (text) => whole(text, 0, MAX_HELD_MB), '0'),
    ignoreTerm: !['', '0', 'false'].includes(env.STANDIN_IGNORE_TERM || ''),
    exitAtStart: setting('STANDIN_EXIT_AT_START', (text) => whole(text, 0, 256), '256'), // 256: not set
    callTimeout: setting('STANDIN_CALL_TIMEOUT', duration, '10s'),
    linger: setting('STANDIN_LINGER', duration, '300ms'),
    grace: setting('STANDIN_GRACE', duration, '8s'),
    logRequests: env.STANDIN_LOG === 'requests',
    onEvent: env.STANDIN_ON_EVENT || '',
    remember: setting('STANDIN_REMEMBER', (text) => whole(text, 1, 1000000), '100000'),
  };
}

let config;
try {
  config = settings();
} catch (wrong) {
  if (!(wrong instanceof Wrong)) throw wrong;
  process.stderr.write(`standin: ${wrong.message}\n`);
  process.exit(2);
}
if (config.exitAtStart < 256) {
  process.stderr.write(`standin: ends with ${config.exitAtStart} as STANDIN_EXIT_AT_START asks\n`);
  process.exit(config.exitAtStart);
}

const moduleName = env.IDI_MODULE || 'standin';
const who = { module: moduleName, instance: env.IDI_INSTANCE || moduleName, version: env.IDI_VERSION || '0' };
const peers = Object.keys(env)
  .filter((name) => name.endsWith('_URL') && name.length > 4 && env[name].startsWith('http://'))
  .filter((name) => name !== 'GATEWAY_URL' && name !== 'EVENTS_URL')
  .map((name) => name.slice(0, -4).toLowerCase().replace(/_/g, '-'))
  .sort();

function log(level, msg, more) {
  const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  process.stdout.write(JSON.stringify({ time, level, msg, ...who, ...more }) + '\n');
}
process.stdout.on('error', () => {}); // whoever read this has gone; the module goes on

// -- state

const now = () => performance.now() / 1000;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
let readyAt = now() + config.readyAfter;
let draining = false;
let held = [];
let heldMb = 0;
const webSockets = new Set();

// Evenly and repeatably: request n fails where the fraction of (seed + n) x golden ratio lies below the rate.
class Failures {
  constructor() {
    this.count = config.seed;
  }
  next(wanted) {
    this.count += 1;
    return Math.imul(this.count, 2654435769) >>> 0 < wanted * 2 ** 32;
  }
}
const failures = new Failures();
const askedFailures = new Failures();

function hold(megabytes, seconds) {
  let piece = Buffer.alloc(megabytes * 1024 * 1024, 1);
  held.push(piece);
  heldMb += megabytes;
  if (seconds !== undefined) {
    setTimeout(() => {
      held = held.filter((other) => other !== piece);
      piece = undefined;
      heldMb -= megabytes;
      v8.setFlagsFromString('--expose_gc'); // without it the memory would stay for as long as the heap is quiet
      vm.runInNewContext('gc')();
    }, seconds * 1000).unref();
  }
}

// -- answers

function send(res, status, type, body) {
  if (draining) res.setHeader('connection', 'close');
  res.writeHead(status, { 'content-type': type, 'content-length': body.length });
  res.end(body);
}

function sendJson(res, value, status) {
  send(res, status || 200, 'application/json', Buffer.from(JSON.stringify(value) + '\n'));
}

function sendProblem(res, problem) {
  const { status, message: detail, more } = problem;
  const value = { type: 'about:blank', title: http.STATUS_CODES[status] || 'Error', status, detail, ...more };
  send(res, status, 'application/problem+json', Buffer.from(JSON.stringify(value) + '\n'));
}

function readBody(req, res) {
  return new Promise((resolve, reject) => {
    const pieces = [];
    let size = 0;
    const refuse = () => {
      res.setHeader('connection', 'close');
      reject(new Problem(413, `a body may have ${MAX_BODY} bytes at most`));
    };
    if (Number(req.headers['content-length'] || 0) > MAX_BODY) return refuse();
    req.on('data', (piece) => {
      size += piece.length;
      if (size > MAX_BODY) {
        req.removeAllListeners('data');
        req.resume();
        return refuse();
      }
      pieces.push(piece);
    });
    req.on('end', () => resolve(Buffer.concat(pieces)));
    req.on('error', reject);
  });
}

// -- calls to peers

const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 64 });

function exchange(url, target, method, headers, body, again) {
  return new Promise((resolve, reject) => {
    const fail = (error) => reject(new Problem(502, error.message || error.code || 'no connection'));
    const req = http.request(
      { agent: again ? false : agent, host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port || 80, path: target, method, headers },
      (res) => {
        const pieces = [];
        let size = 0;
        res.on('data', (piece) => {
          size += piece.length;
          if (size > MAX_BODY) req.destroy(new Error('its body is too long'));
          else pieces.push(piece);
        });
        res.on('end', () => {
          clearTimeout(timer);
          resolve({ status: res.statusCode, body: Buffer.concat(pieces) });
        });
        res.on('error', fail);
      },
    );
    const timer = setTimeout(() => {
      req.destroy(new Error(`the peer gave no answer within ${config.callTimeout} s`));
    }, config.callTimeout * 1000);
    req.on('error', (error) => {
      clearTimeout(timer);
      // A kept connection that ends as a request goes out on it: once more on a new one.
      if (!again && req.reusedSocket && error.code === 'ECONNRESET' && IDEMPOTENT.has(method)) {
        resolve(exchange(url, target, method, headers, body, true));
      } else fail(error);
    });
    req.end(body);
  });
}

async function call(req, res, at) {
  const [peer] = at.rest.split('/', 1);
  const path = at.rest.slice(peer.length + 1);
  const name = peer.toUpperCase().replace(/-/g, '_') + '_URL';
  const text = peer ? env[name] : undefined;
  if (!text) throw new Problem(404, `no peer '${peer}': there is no variable ${name}`, who);
  let url;
  try {
    url = new URL(text);
  } catch {
    url = { protocol: '' };
  }
  if (url.protocol !== 'http:') {
    throw new Problem(502, `${peer} is at ${text.split('://')[0]}://…: only http://HOST:PORT can be called`, who);
  }
  const headers = {};
  for (const header of FORWARDED) if (req.headers[header] !== undefined) headers[header] = req.headers[header];
  if (at.body.length || ['POST', 'PUT', 'PATCH'].includes(req.method)) headers['content-length'] = at.body.length;
  const target = url.pathname.replace(/\/+$/, '') + '/' + (path || 'echo') + (at.query ? '?' + at.query : '');
  let reply;
  try {
    reply = await exchange(url, target, req.method, headers, at.body, false);
  } catch (error) {
    throw new Problem(502, `${peer} can't be reached: ${error.message}`, { peer, ...who });
  }
  let value = reply.body.toString('utf8');
  try {
    value = JSON.parse(value);
  } catch {
    // stays text
  }
  sendJson(res, { ...who, peer_status: reply.status, peer: value });
}

// -- events: published to EVENTS_URL, and handled where the platform posts them

const seen = new Set(); // in the order of their coming, so that the oldest is forgotten first
const handled = new Map();
const last = [];
let repeated = 0;

// An attribute as a header's value: what CloudEvents' HTTP binding (3.1.3.2) wants percent-encoded is, no more.
function escape(text) {
  let result = '';
  for (const byte of Buffer.from(text)) {
    const plain = byte >= 0x21 && byte <= 0x7e && byte !== 0x22 && byte !== 0x25;
    result += plain ? String.fromCharCode(byte) : '%' + byte.toString(16).toUpperCase().padStart(2, '0');
  }
  return result;
}

async function post(req, attributes, data, kind) {
  if (!env.EVENTS_URL) throw new Problem(404, 'there is no EVENTS_URL: the module declares no events', who);
  let url;
  try {
    url = new URL(env.EVENTS_URL);
  } catch {
    url = { protocol: '' };
  }
  if (url.protocol !== 'http:') {
    const scheme = env.EVENTS_URL.split('://')[0];
    throw new Problem(502, `EVENTS_URL is ${scheme}://…: only http://HOST:PORT can be called`, who);
  }
  const headers = { 'ce-specversion': '1.0' };
  for (const [name, value] of Object.entries(attributes)) headers['ce-' + name] = value;
  headers['content-type'] = kind;
  headers['content-length'] = data.length;
  for (const name of ['traceparent', 'tracestate']) {
    if (req.headers[name] !== undefined) headers[name] = req.headers[name];
  }
  const tryIt = (again) => exchange(url, url.pathname, 'POST', headers, data, again);
  try {
    const reply = await tryIt(false).catch(() => tryIt(true)); // the id makes it safe to send it again
    return [reply.status, reply.body.toString('utf8')];
  } catch (error) {
    return [503, error.message];
  }
}

// /publish/TYPE?id=…&subject=…; the body is the data. Answers what EVENTS_URL answered.
async function publish(req, res, at) {
  if (!at.rest) throw new Problem(400, 'no type: /publish/TYPE publishes', who);
  const id = at.ask('id', '') || crypto.randomBytes(8).toString('hex');
  const attributes = { id: escape(id), source: '/' + moduleName, type: at.rest };
  const subject = at.ask('subject', '');
  if (subject) attributes.subject = escape(subject);
  const kind = req.headers['content-type'] || 'application/json';
  const [status, text] = await post(req, attributes, at.body, kind);
  let answer = text;
  try {
    answer = JSON.parse(text);
  } catch {
    // stays text
  }
  sendJson(res, { ...who, id, status, answer }, status);
}

// Data such as {"fail_attempts": 2} makes the first two attempts fail.
function failAsAsked(req, at) {
  let attempt;
  try {
    attempt = whole(req.headers['x-idi-attempt'] || '1', 1, 1000000);
  } catch (wrong) {
    throw new Problem(400, `x-idi-attempt: ${wrong.message}`, who);
  }
  let wanted;
  try {
    wanted = JSON.parse(at.body.toString('utf8')).fail_attempts;
  } catch {
    return; // any data is good, not this stand-in's alone
  }
  if (Number.isInteger(wanted) && attempt <= wanted) {
    throw new Problem(503, `attempt ${attempt} failed as asked`, who);
  }
}

async function take(req, res, at) {
  const event = {};
  for (const name of ['id', 'type', 'source', 'subject']) event[name] = req.headers['ce-' + name] || '';
  if (!event.id || !event.type) throw new Problem(400, 'no event: there is no ce-id or no ce-type', who);
  const key = `${event.source} ${event.id}`;
  if (key.length > MAX_KEY) {
    throw new Problem(400, `ce-source and ce-id have more than ${MAX_KEY} characters`, who);
  }
  if (seen.has(key)) {
    repeated += 1;
    return sendJson(res, { ...who, repeated: true });
  }
  failAsAsked(req, at);
  if (config.onEvent) {
    const data = Buffer.from(JSON.stringify({ follows: { type: event.type, id: event.id } }));
    const attributes = { id: event.id, source: '/' + moduleName, type: config.onEvent };
    if (event.subject) attributes.subject = event.subject;
    const [status, text] = await post(req, attributes, data, 'application/json');
    if (status < 200 || status >= 300) {
      throw new Problem(503, `${config.onEvent} was not kept: ${status} ${text.trim()}`, who);
    }
  }
  seen.add(key);
  if (seen.size > config.remember) seen.delete(seen.values().next().value);
  const kind = handled.has(event.type) || handled.size < MAX_TYPES ? event.type : 'others';
  handled.set(kind, (handled.get(kind) || 0) + 1);
  last.push([event.id, req.headers.traceparent === undefined ? null : req.headers.traceparent]);
  if (last.length > SHOWN) last.shift();
  sendJson(res, { ...who, handled: event.id });
}

function takeOrList(req, res, at) {
  if (req.method === 'POST') return take(req, res, at);
  const [ids, traces] = [0, 1].map((part) => last.map((one) => one[part]));
  sendJson(res, { ...who, handled: Object.fromEntries(handled), repeated, last: ids, traces });
}

// -- endpoints: (req, res, {path, query, rest, body, ask})

const NESTED = new Set(['echo', 'call', 'publish', 'events']); // more may follow their name in the path
const routes = {
  '': (req, res) => sendJson(res, { ...who, env: env.IDI_ENV || 'none', peers }),
  ready(req, res) {
    const wait = readyAt - now();
    if (draining) throw new Problem(503, 'on its way out', who);
    if (wait > 0) throw new Problem(503, `not ready for another ${wait.toFixed(2)} s`, who);
    sendJson(res, { ...who, ready: true });
  },
  unready(req, res, at) {
    const seconds = duration(at.ask('for', '2s'));
    readyAt = now() + seconds;
    sendJson(res, { ...who, unready_for: seconds });
  },
  echo(req, res, at) {
    const headers = {};
    for (const [name, values] of Object.entries(req.headersDistinct)) headers[name] = values.join(', ');
    const value = { method: req.method, path: at.path, query: at.query, headers };
    try {
      value.body = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(at.body);
    } catch {
      value.body = null;
      value.body_base64 = at.body.toString('base64');
    }
    sendJson(res, { ...value, ...who });
  },
  headers: (req, res) => sendJson(res, { ...who, headers: { ...req.headersDistinct } }),
  call,
  publish,
  events: takeOrList,
  async slow(req, res, at) {
    const seconds = duration(at.ask('for', '250ms'));
    await sleep(seconds);
    sendJson(res, { ...who, slept: seconds });
  },
  fail(req, res, at) {
    const status = whole(at.ask('status', '500'), 400, 599);
    if (askedFailures.next(rate(at.ask('rate', '1')))) throw new Problem(status, 'failed as asked', who);
    sendJson(res, { ...who, failed: false });
  },
  crash: (req, res, at) => process.exit(whole(at.ask('code', '1'), 0, 255)),
  memory(req, res, at) {
    const megabytes = whole(at.ask('mb', '50'), 0, MAX_HELD_MB);
    const seconds = duration(at.ask('for', '10s'));
    if (heldMb + megabytes > MAX_HELD_MB) throw new Problem(429, `${MAX_HELD_MB} MiB at most are held at once`, who);
    hold(megabytes, seconds);
    sendJson(res, { ...who, held_mb: heldMb });
  },
  async cpu(req, res, at) {
    const seconds = Math.min(duration(at.ask('for', '200ms')), 60);
    const end = now() + seconds;
    while (now() < end) {
      const sliceEnd = Math.min(end, now() + 0.002); // in slices, so that other requests are still answered
      while (now() < sliceEnd);
      await new Promise((resolve) => setImmediate(resolve));
    }
    sendJson(res, { ...who, burnt: seconds });
  },
  async sse(req, res, at) {
    const count = whole(at.ask('count', '3'), 0, 100000);
    const every = duration(at.ask('every', '50ms'));
    if (draining) res.setHeader('connection', 'close');
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = 1; n <= count && !res.destroyed; n += 1) {
      if (n > 1) await sleep(every);
      res.write(`id: ${n}\nevent: tick\ndata: ${JSON.stringify({ ...who, n })}\n\n`);
    }
    res.end();
  },
  ws() {
    throw new Problem(426, 'this address speaks WebSocket: ask with Upgrade: websocket');
  },
  async big(req, res, at) {
    const size = whole(at.ask('bytes', '100000'), 0, MAX_BIG);
    const piece = Buffer.alloc(Math.min(size, PIECE), 'x');
    if (size <= PIECE) return send(res, 200, 'application/octet-stream', piece);
    if (draining) res.setHeader('connection', 'close');
    res.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
    for (let left = size; left > 0 && !res.destroyed && req.method !== 'HEAD'; left -= PIECE) {
      if (!res.write(left >= PIECE ? piece : piece.subarray(0, left))) {
        await new Promise((resolve) => {
          res.once('drain', resolve);
          res.once('close', resolve);
        });
      }
    }
    res.end();
  },
};

async function handle(req, res) {
  const mark = req.url.indexOf('?');
  const path = mark < 0 ? req.url : req.url.slice(0, mark);
  const query = mark < 0 ? '' : req.url.slice(mark + 1);
  const [first] = path.slice(1).split('/', 1);
  const slash = path.length > first.length + 1;
  const parameters = query ? new URLSearchParams(query) : undefined;
  const at = {
    path,
    query,
    rest: path.slice(first.length + 2),
    ask: (name, fallback) => (parameters && parameters.has(name) ? parameters.get(name) : fallback),
  };
  try {
    at.body = await readBody(req, res);
    const route = Object.hasOwn(routes, first) && path[0] === '/' ? routes[first] : undefined;
    if (!route || (slash && !NESTED.has(first))) {
      throw new Problem(404, `this stand-in has no ${path}`, who);
    }
    if (first !== 'ready' && first !== 'unready') {
      if (config.slow) await sleep(config.slow);
      if (failures.next(config.failRate)) {
        throw new Problem(config.failStatus, 'failed as STANDIN_FAIL_RATE asks', who);
      }
    }
    await route(req, res, at);
  } catch (error) {
    if (res.destroyed || req.errored) return; // the client has gone
    if (error instanceof Wrong) sendProblem(res, new Problem(400, error.message, who));
    else if (error instanceof Problem) sendProblem(res, error);
    else throw error;
  }
}

// -- WebSocket echo (RFC 6455), the least of it

function frame(opcode, payload) {
  const size = payload.length;
  const head = Buffer.alloc(size < 126 ? 2 : size < 65536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  head[1] = size < 126 ? size : size < 65536 ? 126 : 127;
  if (head.length === 4) head.writeUInt16BE(size, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(size), 2);
  return Buffer.concat([head, payload]);
}

function closeWebSocket(socket, code) {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  socket.end(frame(8, payload));
}

// Takes one frame off the state's buffer; false while it is incomplete, a close code where it is wrong.
function takeFrame(state, socket) {
  const data = state.buffer;
  if (data.length < 2) return false;
  const [final, opcode] = [data[0] & 0x80, data[0] & 15];
  let [size, at] = [data[1] & 127, 2];
  if (data[0] & 0x70 || !(data[1] & 0x80) || (opcode >= 8 && (size > 125 || !final))) return 1002;
  if (size > 125) {
    at = size === 126 ? 4 : 10;
    if (data.length < at) return false;
    size = size === 126 ? data.readUInt16BE(2) : Number(data.readBigUInt64BE(2));
  }
  if (size + state.size > MAX_MESSAGE) return 1009;
  if (data.length < at + 4 + size) return false;
  const payload = Buffer.from(data.subarray(at + 4, at + 4 + size));
  for (let i = 0; i < size; i += 1) payload[i] ^= data[at + (i & 3)];
  state.buffer = data.subarray(at + 4 + size);
  if (opcode === 9) socket.write(frame(10, payload));
  else if (opcode === 8) {
    socket.end(frame(8, payload.subarray(0, 2)));
    return 0;
  } else if (opcode <= 2) {
    if ((opcode === 0) !== (state.kind !== 0)) return 1002;
    state.kind = state.kind || opcode;
    state.pieces.push(payload);
    state.size += size;
    if (final) {
      const message = Buffer.concat(state.pieces);
      if (state.kind === 1) {
        try {
          new TextDecoder('utf-8', { fatal: true }).decode(message);
        } catch {
          return 1007;
        }
      }
      socket.write(frame(state.kind, message));
      Object.assign(state, { kind: 0, pieces: [], size: 0 });
    }
  } else if (opcode !== 10) return 1002;
  return true;
}

function upgrade(req, socket, head) {
  const key = req.headers['sec-websocket-key'] || '';
  const wanted = /^\/ws(\?|$)/.test(req.url) && /^websocket$/i.test(req.headers.upgrade || '') && req.method === 'GET';
  if (!wanted || req.headers['sec-websocket-version'] !== '13' || key.length !== 24) {
    socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    return;
  }
  const accept = crypto.createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n' +
      `sec-websocket-accept: ${accept}\r\n\r\n`,
  );
  socket.setNoDelay(true);
  unused.delete(socket);
  webSockets.add(socket);
  const state = { buffer: head, kind: 0, pieces: [], size: 0 };
  const take = () => {
    let result = true;
    while (result === true && !socket.writableEnded) result = takeFrame(state, socket);
    if (result > 1) closeWebSocket(socket, result);
  };
  socket.on('data', (data) => {
    if (socket.writableEnded) return;
    state.buffer = Buffer.concat([state.buffer, data]);
    take();
  });
  socket.on('error', () => {});
  socket.on('close', () => webSockets.delete(socket));
  take();
  if (draining) closeWebSocket(socket, 1001);
}

// -- life

const server = http.createServer({ maxHeaderSize: 64 * 1024, requestTimeout: 0 }, (req, res) => {
  if (config.logRequests) {
    const began = now();
    res.on('finish', () => {
      const more = { method: req.method, path: req.url.split('?')[0], status: res.statusCode };
      more.ms = Math.round((now() - began) * 1e5) / 100;
      const trace = (req.headers.traceparent || '').split('-');
      if (trace.length >= 3) Object.assign(more, { trace_id: trace[1], span_id: trace[2] });
      if (req.headers['x-request-id'] !== undefined) more.request_id = req.headers['x-request-id'];
      log(res.statusCode >= 500 ? 'error' : 'info', 'request', more);
    });
  }
  unused.delete(req.socket);
  handle(req, res);
});
server.keepAliveTimeout = 0; // a connection that ends by itself would race with the next request
const unused = new Set(); // connections on which nothing was ever asked: closeIdleConnections leaves those out
server.on('connection', (socket) => {
  unused.add(socket);
  socket.on('close', () => unused.delete(socket));
});
server.on('upgrade', upgrade);
server.on('error', (error) => {
  process.stderr.write(`standin: can't listen on ${config.bind}:${config.port}: ${error.message}\n`);
  process.exit(1);
});

function stop() {
  if (draining) return;
  draining = true;
  const finish = (cut) => {
    log(cut ? 'warning' : 'info', 'stopped', { cut });
    process.exit(0);
  };
  for (const socket of webSockets) closeWebSocket(socket, 1001);
  // The listening socket only: http's own close() would end idle connections under requests that are on their way.
  net.Server.prototype.close.call(server, () => finish(0));
  setTimeout(() => {
    const closeIdle = () => {
      server.closeIdleConnections();
      for (const socket of unused) socket.destroy();
    };
    setInterval(closeIdle, 10).unref();
    closeIdle();
  }, config.linger * 1000).unref();
  setTimeout(() => server.getConnections((error, count) => finish(count || 0)), config.grace * 1000);
}

for (const name of ['SIGTERM', 'SIGINT']) {
  process.on(name, () => {
    if (config.ignoreTerm && name === 'SIGTERM') log('warning', 'SIGTERM ignored as STANDIN_IGNORE_TERM asks');
    else stop();
  });
}
if (config.memoryMb) hold(config.memoryMb);
if (config.crashAfter) setTimeout(() => process.exit(config.crashCode), config.crashAfter * 1000);
server.listen({ port: config.port, host: config.bind, backlog: 1024 }, () => {
  log('info', 'started', { port: config.port, pid: process.pid, env: env.IDI_ENV || 'none' });
});
