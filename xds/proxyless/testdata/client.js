// Calls a proxyless service for the test: each line on standard input is a call, each on standard output its answer, as
// "ok NAME" or "error CODE MESSAGE". The first argument is the target.
const {Client, credentials} = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const client = new Client(process.argv[2], credentials.createInsecure());
const bytes = (b) => b;

function answer(err, reply) {
  if (err) {
    console.log(`error ${err.code} ${String(err.details).replaceAll('\n', ' ')}`);
    return;
  }
  console.log(`ok ${reply.subarray(2)}`); // past the tag and the length of the only field
}

require('readline').createInterface({input: process.stdin}).on('line', () => {
  const deadline = Date.now() + 10_000;
  client.makeUnaryRequest('/test.Backend/Name', bytes, bytes, Buffer.alloc(0), {deadline}, answer);
}).on('close', () => process.exit(0));
