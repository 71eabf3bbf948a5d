// A stock client, @grpc/grpc-js and nothing of ours, moved from outside: orders come in on standard input, one JSON
// object a line, and whatever happens goes out on standard output in the same way (tests/transport/stock/javascript.py).
'use strict';

const fs = require('fs');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

// Every rpc by its path; messages are objects here, made from and into bytes by their descriptors.
const options = { keepCase: true, longs: String, oneofs: true };
const loaded = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(process.argv[2]), options);
const rpcs = {};
for (const service of Object.values(loaded)) {
  for (const rpc of Object.values(service)) if (rpc && rpc.path) rpcs[rpc.path] = rpc;
}

const clients = new Map();
const calls = new Map();

function tell(id, event, more = {}) {
  process.stdout.write(JSON.stringify({ id, event, ...more }) + '\n');
}

// Values of headers, several under one name as a list; binary ones in base64.
function headers(metadata) {
  const told = {};
  for (const name of Object.keys(metadata.getMap())) {
    told[name] = metadata.get(name).map((value) => (Buffer.isBuffer(value) ? value.toString('base64') : value));
  }
  return told;
}

function status(id, how) {
  tell(id, 'status', { code: how.code, details: how.details, trailers: headers(how.metadata || new grpc.Metadata()) });
  calls.delete(id);
}

function open({ client, target, name, roots, key, chain, options }) {
  const read = (path) => fs.readFileSync(path);
  const credentials = grpc.credentials.createSsl(read(roots), read(key), read(chain));
  clients.set(client, new grpc.Client(target, credentials, { 'grpc.ssl_target_name_override': name, ...options }));
}

function call({ client, id, method, metadata, timeout, waits, request }) {
  const rpc = rpcs[method];
  const made = new grpc.Metadata({ waitForReady: waits });
  for (const [name, value] of metadata) made.add(name, name.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  const bounds = timeout === null ? {} : { deadline: Date.now() + timeout * 1000 };
  const message = (got) => tell(id, 'message', { data: rpc.responseSerialize(got).toString('base64') });
  const from = [rpc.path, rpc.requestSerialize, rpc.responseDeserialize];
  const to = clients.get(client);
  let going;
  if (rpc.requestStream) {
    going = to.makeBidiStreamRequest(...from, made, bounds);
  } else {
    const asked = rpc.requestDeserialize(Buffer.from(request, 'base64'));
    going = rpc.responseStream
      ? to.makeServerStreamRequest(...from, asked, made, bounds)
      : to.makeUnaryRequest(...from, asked, made, bounds, (error, got) => { if (!error) message(got); });
  }
  going.on('metadata', (got) => tell(id, 'headers', { headers: headers(got) }));
  going.on('status', (how) => status(id, how));
  if (rpc.responseStream) {
    going.on('data', message);
    going.on('error', () => {}); // told as a status, too
  }
  calls.set(id, { rpc, going });
}

const orders = {
  open,
  call,
  send: ({ id, data }) => {
    const { rpc, going } = calls.get(id);
    going.write(rpc.requestDeserialize(Buffer.from(data, 'base64')));
  },
  done: ({ id }) => calls.get(id).going.end(),
  cancel: ({ id }) => { const found = calls.get(id); if (found) found.going.cancel(); },
  close: ({ client }) => { clients.get(client).close(); clients.delete(client); },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => { const order = JSON.parse(line); orders[order.do](order); });
lines.on('close', () => process.exit(0));
tell(0, 'ready');
