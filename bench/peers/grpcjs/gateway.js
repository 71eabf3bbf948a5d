// A fan-out gateway on Node and grpc-js: five calls at once, five answers in one, mutual TLS on both sides.
//
// node gateway.js SETTINGS, a JSON file: port, zone, certificate (key and chain), bundle, protos (folders), raw,
// departments: [{field, service, name, target}]. With `raw` answers are not parsed: their bytes are put together.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const roots = fs.readFileSync(settings.bundle);
const own = fs.readFileSync(settings.certificate);
const options = { includeDirs: settings.protos, keepCase: true, longs: Number, enums: Number, defaults: false };
const contracts = grpc.loadPackageDefinition(loader.loadSync("bench.proto", options)).bench.v1;
const keep = (bytes) => bytes;

function asRaw(service) {
  const raw = {};
  for (const [name, method] of Object.entries(service)) {
    const plain = {
      requestSerialize: keep, requestDeserialize: keep, responseSerialize: keep, responseDeserialize: keep,
    };
    raw[name] = { ...method, ...plain };
  }
  return raw;
}

function call(department) {
  const contract = contracts[department.service];
  const Client = settings.raw ? grpc.makeGenericClientConstructor(asRaw(contract.service)) : contract;
  const channel = { "grpc.ssl_target_name_override": department.name, "grpc.default_authority": department.name };
  const client = new Client(department.target, grpc.credentials.createSsl(roots, own, own), channel);
  return (request, deadline) =>
    new Promise((resolve, reject) => {
      client.Get(request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
}

const calls = settings.departments.map(call);

function join(answers) {
  if (!settings.raw) {
    return Object.fromEntries(settings.departments.map((department, i) => [department.field, answers[i]]));
  }
  return Buffer.concat(answers.flatMap((bytes, i) => [head(i + 1, bytes.length), bytes]));
}

function head(number, length) {
  const written = [(number << 3) | 2];
  while (length > 0x7f) {
    written.push((length & 0x7f) | 0x80);
    length >>>= 7;
  }
  written.push(length);
  return Buffer.from(written);
}

async function query(asked, respond) {
  try {
    const deadline = asked.getDeadline();
    respond(null, join(await Promise.all(calls.map((get) => get(asked.request, deadline)))));
  } catch (error) {
    respond(error);
  }
}

const server = new grpc.Server();
const service = contracts.Gateway.service;
server.addService(settings.raw ? asRaw(service) : service, { Query: query });
const pair = [{ private_key: own, cert_chain: own }];
server.bindAsync(`127.0.0.1:${settings.port}`, grpc.ServerCredentials.createSsl(roots, pair, true), (error) => {
  if (error) throw error;
});
