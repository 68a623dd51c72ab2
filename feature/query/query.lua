-- Drops query parameters and appends others; whatever else the client wrote stays as it is, byte for byte.
-- The context of the route holds
--   drop    names of parameters, unescaped -> true
--   append  parameters, escaped: a=1&b=2, or empty

local function unescape(name)
  name = name:gsub("+", " ")
  name = name:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
  return name
end

function envoy_on_request(handle)
  local context = handle:filterContext()
  local drop, append = context:get("drop"), context:get("append")
  local headers = handle:headers()
  local original = headers:get(":path")
  local path, query = original:match("^([^?]*)%??(.*)$")

  local kept, dropped = {}, false
  for parameter in query:gmatch("[^&]+") do
    if drop[unescape(parameter:match("^[^=]*"))] then
      dropped = true
    else
      kept[#kept + 1] = parameter
    end
  end
  if append ~= "" then
    kept[#kept + 1] = append
  elseif not dropped then
    return
  end
  if #kept > 0 then
    path = path .. "?" .. table.concat(kept, "&")
  end
  -- What the client asked for, for backends and the access log. Clients can't send the header.
  headers:replace("x-envoy-original-path", original)
  headers:replace(":path", path)
end
